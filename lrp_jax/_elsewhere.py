"""Names that other libraries have for what is called otherwise here, or is not needed."""

import sys
from collections.abc import Callable
from typing import Any

_NOTHING = (
    "there are no canonizers: batch norms, residual sums and activations are found in the traced "
    "function. Leave it out; lrp.plan shows what was found"
)
_COMPOSITE = "lrp.Composite([(match, rule), ...]), with kinds, globs and lrp.first(...) as matches"
_REMEDIES = {
    # zennit
    "Gradient": "lrp.relevance(apply_fn, composite)(params, x, target=...); the plain gradient is "
    "lrp_jax.baselines.gradient(apply_fn)",
    "Convolution": "lrp.Conv",
    "LayerMapComposite": _COMPOSITE,
    "MixedComposite": _COMPOSITE,
    "NameMapComposite": _COMPOSITE,
    "SpecialFirstLayerMapComposite": _COMPOSITE,
    "SpecialFirstNamedLayerMapComposite": _COMPOSITE,
    "COMPOSITES": "the functions of lrp_jax.composites",
    "Deconvnet": "lrp_jax.composites.deconvnet()",
    "ReLUBetaSmooth": "lrp.BetaSmooth()",
    "ReLUDeconvNet": "lrp.DeconvNet()",
    "ReLUGuidedBackprop": "lrp.GuidedBackprop()",
    "imgify": "lrp_jax.plot.rgb(relevance)",
    "imsave": "lrp_jax.plot.rgb(relevance), an array that PIL.Image.fromarray takes",
    # zennit-crp
    "CondAttribution": "lrp.concept_relevance(apply_fn, composite, layer, concepts)",
    "FeatureVisualization": "lrp_jax.questions.reference_samples(apply_fn, composite, layer)",
    # Captum, iNNvestigate, LXT
    "LRP": "lrp.relevance(apply_fn, composite)(params, x, target=...)",
    "LayerLRP": "lrp.layer_relevances(apply_fn, composite, layers)",
    "EpsilonRule": "lrp.Epsilon(epsilon)",
    "GammaRule": "lrp.Gamma(gamma)",
    "Alpha1_Beta0_Rule": "lrp.ZPlus()",
    "IdentityRule": "lrp.Pass()",
    "create_analyzer": "lrp.relevance(apply_fn, composite)(params, x)",
    "monkey_patch": "lrp.relevance(apply_fn, lrp.AttnLRP())(params, token_ids): nothing is patched",
    "GradCAM": "lrp_jax.baselines.grad_cam(apply_fn, layer)",
    "IntegratedGradients": "lrp_jax.baselines.integrated_gradients(apply_fn)",
    "Occlusion": "lrp_jax.baselines.occlusion(apply_fn)",
    "Saliency": "lrp_jax.baselines.gradient(apply_fn)",
    "InputXGradient": "lrp_jax.baselines.input_x_gradient(apply_fn)",
    "SmoothGrad": "lrp_jax.baselines.smoothgrad(apply_fn, key=key)",
    "GuidedBackprop": "lrp_jax.composites.guided_backprop()",
    "BetaSmooth": "lrp_jax.composites.beta_smooth()",
}


def attribute_of(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__`: it has no such name, and what is written in its place."""

    def attribute(name: str) -> Any:
        text = f"module {module!r} has no attribute {name!r}"
        canonizes = name.endswith("Canonizer") or name.startswith(("SequentialMerge", "NamedMerge"))
        remedy = _NOTHING if canonizes else _REMEDIES.get(name)
        if remedy is None:  # Python says what was probably meant
            raise AttributeError(text, name=name, obj=sys.modules[module])
        raise AttributeError(f"{text}; here: {remedy}.")

    return attribute
