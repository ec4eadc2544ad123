"""Export: a student as a folder that stock diffusers loads."""

from fewstep.export.diffusers_folder import Exported, export_student

__all__ = ["Exported", "export_student"]
