"""The demo's protocol on few pictures."""

from dataclasses import replace

from fewstep.demo.protocol import FULL, OPEN, Protocol

SMALL = Protocol(real_diversity=1.0, full=replace(FULL, copies=2), open=replace(OPEN, copies=2), noise_seeds=(1000,))
