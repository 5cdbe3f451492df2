"""Process that starts the jobs of a sweep with a Hydra launcher: `python -m suites.hydra_jobs.launch_process FOLDER`.

Launchers print to standard output, change process-wide state and may never return. So they run in a process of their
own, which the command can end. Hydra composes a configuration with one key, the number of the cell: nodes do not
need to read the configuration of the sweep. FOLDER is the sweep folder with launch.json.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.json_codec import from_json, to_json
from suites.hydra_jobs.cell_job import CellJob
from suites.hydra_jobs.launchers import SHORT_FOLDER, check_cluster, import_launcher, launcher_settings
from suites.hydra_jobs.sweep_folder import CellAnswer, Launch, SweepFolder
from suites.hydra_jobs.waiting_jobs import waiting_reported
from suites.schema.refusals import Refused, first_line, shortened
from suites.text import one_line

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

CONFIG = "launched_cell"

LONGEST_REASON = 600

SLURM_ADVICE = "run sinfo, which must list the partition and its nodes; SLURM_CONF names the cluster"


def main(path: Path) -> int:
    """Run the pending cells of a sweep folder. Return 1 if the launcher failed; its reason is in the folder."""
    folder = SweepFolder(path)
    launch = folder.read_launch()
    try:
        import_launcher(launch.choice.name)
        check_cluster(launch.choice)
        results = _launch(launch)
    except Exception as error:  # a launcher, and the library that it uses, raise any type of error
        folder.write_failure(reason_of(error, launch.choice.name))
        raise
    for cell, result in zip(launch.pending, results, strict=True):
        if folder.read_answer(cell) is None:
            try:
                folder.write_answer(from_json(CellAnswer, result.return_value))
            except Exception as error:
                folder.write_failure(f"the job of cell {cell + 1} failed: {reason_of(error, launch.choice.name)}")
    return 0


def _launch(launch: Launch) -> Sequence[JobReturn]:
    from hydra import version
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    version.setbase("1.3")
    logging: list[object] = [{f"override hydra/{name}_logging": "none"} for name in ("job", "hydra")]
    settings = {"sweep": {"dir": launch.folder, "subdir": "."}, "output_subdir": None, "job": {"chdir": False}}
    node = {"defaults": ["_self_", *logging], "cell": 0, "hydra": settings}
    ConfigStore.instance().store(name=CONFIG, node=node)
    hydra = Hydra.create_main_hydra2(CONFIG, create_config_search_path(None))
    config = hydra.compose_config(
        CONFIG, launcher_settings(launch.choice, launch.job_name), RunMode.MULTIRUN, with_log_configuration=False
    )
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks()),
        task_function=CellJob(to_json(launch)),
        config=config,
    )
    with waiting_reported(launch, config.hydra.launcher):
        return launcher.launch([[f"cell={cell}"] for cell in launch.pending], 0)


def _settings(name: str) -> list[str]:
    """Return the settings of a launcher that Hydra knows."""
    from hydra.core.config_store import ConfigStore

    node = ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node
    return [f"hydra.launcher.{key}" for key in map(str, node) if not key.startswith("_")]


def reason_of(error: Exception, name: str) -> str:
    """Return one line with the cause of an error of a launcher. Some errors contain the traceback of another node."""
    from suites.cli.hydra_errors import composition_errors, explain

    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, composition_errors()):
        if unknown := re.search(r"Could not override '(hydra\.launcher\.[^']+)'", str(error)):
            return f"there is no setting {unknown.group(1)}; its settings: {', '.join(_settings(name))}"
        return explain(error)
    if name == "ray" and "AF_UNIX" in str(error):
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        return f"the paths of Ray's sockets in {shortened(folder, 300)} are too long; {SHORT_FOLDER}"
    if refused := re.findall(r"^sbatch: (?:error|fatal): (.+)$", str(error), re.MULTILINE):
        # The first line has the cause, and the last one its effect.
        cause = ": ".join(dict.fromkeys((refused[0], refused[-1])))
        return f"sbatch: {one_line(cause, LONGEST_REASON)}; {SLURM_ADVICE}"
    causes = re.findall(r"^\s*((?:[\w.]+\.)?\w*(?:Error|Exception|error): .+)$", str(error), re.MULTILINE)
    return one_line(causes[-1] if causes else first_line(error), LONGEST_REASON)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
