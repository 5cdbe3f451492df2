"""Result of suite=accuracy: the scores of a task, which other suites read too."""

from __future__ import annotations

from suites.tasks.task_scores import TaskScores

RESULT = TaskScores
