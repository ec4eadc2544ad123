"""Backbones: one adapter per family, chosen by kind or by the checkpoint's pipeline class."""

from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.registry import adapter_class, backbone_kinds, create_model_adapter

__all__ = ["BackboneConfig", "ModelAdapter", "adapter_class", "backbone_kinds", "create_model_adapter"]
