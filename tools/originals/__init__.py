"""Runs the metrics against the programs that papers use, on equal random weights, and notes the differences.

By hand, in an environment that has them beside this package's own:

    pip install --no-deps --target ORIGINALS pytorch-fid clean-fid torch-fidelity prdc vendi-score lpips \\
        open_clip_torch hpsv2 image-reward timm fairscale ftfy wcwidth torchvision t2v-metrics qwen-vl-utils
    PYTHONPATH=ORIGINALS:. python -m tools.originals

It writes ``src/fewstep/scores/originals.json``, from which docs/metrics.md tells them. No published weights are needed:
both sides get the same random ones, so that what differs is reading, resizing, network and statistics.
"""
