"""The text of --help, with the choices of each group read off suites/conf/."""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).resolve().parent / "conf"

USAGE = """\
Compare ways of running a BERT-style model: latency, accuracy and memory, cell by cell, under one harness.

  python -m suites.run backend=ort precision=int8
  python -m suites.run -m backend=torch_eager,ort precision=fp32,int8
  python -m suites.run -m experiment=demo

Choose one of each group, as group=choice:

{groups}

Set any value, as key=value:

  batch=[1,8] sequence=[32,128]    the grid of shapes
  weights=trained|random           random: seeded, for latency without a download
  device=auto|cpu|cuda gpu=0       where to run
  model.path=FOLDER                weights of your own: config.json, model.safetensors, tokenizer.json
  model.hub=OWNER/NAME             weights from the Hugging Face hub; model.revision=main
  model.name=NAME                  the name in tables; without it that of the folder or hub id
  suite.seconds=1.0                time given to each phase of a measurement
  backend.cuda_graph=true          measure CUDA graphs beside plain steps
  threads=0                        CPU threads of the backend; 0 leaves it to the library
  quantization.placement=auto      Q/DQ around all, gemm, ffn or attention; also .scheme .method .samples .sequence
                                   .activation .per_channel .reduce_range .smooth .tokens .qat_steps
  suite=accuracy task=stsb         a task's figure beside FP32's; task.path=FOLDER has its files
  suite=layers layers.chunk=16     how far each layer's outputs are from FP32's, and the first past layers.threshold
  suite=switching                  what changes of shape cost: switching.switch .requests .repeats .trace .pad_to,
                                   suite.pairs_s .replay_s (time for each) .starts;
                                   python -m suites.advise TRACE then names the cheapest strategy
  profiles=per_shape               TensorRT: or dynamic (trt.min .opt .max), buckets, ranges (trt.ranges); keep_fp32=
  trt.optimization_level=3         also .contexts .engines .memory_mb .tactic_sources .workspace_mb ...: see --cfg job
  layout=packed                    plugins: or fixed; plugin.products .gelu; INT8: plugin.attention .norms .interleaved
                                   .scale_max; packed: pad_to_multiple_of=64 (tokens, so that their numbers recur)
  quantization.leave_out=[PATTERN] nodes left out of INT8; suites.search finds which: python -m suites.search --help
  until=measure                    or export, build: prepare the cache and stop there, several at a time if you like
  results=results/runs cache=.cache  where records and tables go, and artifacts
  rerun=false seed=0

A sweep (-m) runs every combination of comma-separated values. Cells that ran before are reused; rerun=true measures
them again. Exit status: 0 all well, 1 a cell failed, 2 refused. `--cfg job` prints every key with its value."""


def group_choices() -> str:
    """One line a group: its name and the choices that have a file."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and any(folder.glob("*.yaml")))
    return "\n".join(f"  {g.name:<12} {', '.join(sorted(file.stem for file in g.glob('*.yaml')))}" for g in groups)
