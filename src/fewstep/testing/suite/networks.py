"""How the network answers, and what of it can be trained."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fewstep.core.points import NoisyLatent
from fewstep.testing.case import Case
from fewstep.testing.suite.gradients import gradients, require_gradients_as_declared


class Networks:
    def test_gradient_checkpointing_does_not_change_gradients(self, case: Case) -> None:
        plain, saving = gradients(case, checkpointing=False), gradients(case, checkpointing=True)
        assert plain.keys() == saving.keys()
        for name in plain:
            torch.testing.assert_close(saving[name], plain[name], rtol=1e-6, atol=1e-8)

    def test_every_parameter_receives_a_gradient_except_those_declared(self, case: Case) -> None:
        require_gradients_as_declared(case, gradients(case, checkpointing=False))

    def test_velocity_is_float32_under_a_bfloat16_network(self, case: Case) -> None:
        network = case.adapter.load_network(dtype=torch.bfloat16)
        cond, _ = case.conditioning()
        point = NoisyLatent(case.noise(), torch.tensor([0.999, 0.4]))
        case.adapter.compute_dtype = torch.bfloat16
        try:
            low = case.adapter.velocity(network, point, cond)
        finally:
            case.adapter.compute_dtype = torch.float32
        full = case.adapter.velocity(case.network, point, cond)
        assert low.dtype == torch.float32
        # bfloat16 keeps eight bits; three blocks of it stay within a few per cent of the largest value
        torch.testing.assert_close(low, full, rtol=0, atol=0.05 * float(full.abs().max().detach()))

    def test_documented_cdm_names_answer(self, case: Case) -> None:
        cond, null = case.conditioning()
        adapter, network, point = case.adapter, case.network, case.point()
        with torch.no_grad():
            student = adapter.student_forward(network, point, cond)
            teacher = adapter.teacher_forward(
                network, point, cond, null.expand(len(cond)), guidance_scale=adapter.guidance.off
            )
        assert torch.equal(student, teacher)
        assert len(adapter.get_tokenizers(case.pipeline)) == len(adapter.get_text_encoders(case.pipeline)) >= 1
        assert adapter.get_lora_target_modules() == list(adapter.lora_targets)

    def test_attention_never_makes_its_matrix(self, case: Case) -> None:
        class Asked(TorchFunctionMode):
            def __init__(self) -> None:
                super().__init__()
                self.functions: set[Any] = set()

            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                self.functions.add(func)
                return func(*args, **(kwargs or {}))

        point = case.point()
        cond, _ = case.conditioning()
        with torch.no_grad(), Asked() as asked:
            case.adapter.velocity(case.network, point, cond)
        assert functional.scaled_dot_product_attention in asked.functions
        assert not asked.functions & {torch.softmax, functional.softmax, Tensor.softmax}
