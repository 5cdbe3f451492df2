"""Questions, clocks, processes, statistics and records. INFERENCE_SUITES_PATH adds suites of other projects."""

import os as _os

__path__ += [
    folder
    for root in filter(None, _os.environ.get("INFERENCE_SUITES_PATH", "").split(_os.pathsep))
    if _os.path.isdir(folder := _os.path.abspath(_os.path.join(root, "suites")))
]
