"""The ImageBind audio tower: shapes, saving, attention implementations, the logit scale."""

import pytest
import torch

from affectgpt import ImageBindAudioConfig, ImageBindAudioModel
from affectgpt.modeling_imagebind_audio import ImageBindAudioAttention


def make_model(**changes) -> ImageBindAudioModel:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_mel_bins": 32,
        "num_frames": 36,
        "embed_dim": 12,
        "initializer_range": 0.2,
    }
    return ImageBindAudioModel(ImageBindAudioConfig(**{**sizes, **changes})).eval()


@torch.no_grad()
def test_forward_clips_of_a_batch_gives_one_vector_each():
    model = make_model()
    mels = torch.randn(3, 2, 32, 36)
    output = model(mels)
    assert output.pooler_output.shape == (3, 2, 12)
    assert output.last_hidden_state.shape == (3, 2, 1 + 2 * 3, 16)
    torch.testing.assert_close(model(mels[:, 1]).pooler_output, output.pooler_output[:, 1])


@torch.no_grad()
def test_forward_output_has_the_length_of_the_logit_scale():
    model = make_model()
    mels = torch.randn(2, 1, 32, 36)
    torch.testing.assert_close(model(mels).pooler_output.norm(dim=-1), torch.full((2, 1), 20.0))
    model.log_logit_scale.fill_(10.0)
    torch.testing.assert_close(model(mels).pooler_output.norm(dim=-1), torch.full((2, 1), 100.0))


def test_forward_mels_of_another_size_raises():
    with pytest.raises(ValueError, match=r"Expected `input_features` of shape .*32.*36.*got \(1, 1, 32, 35\)"):
        make_model()(torch.zeros(1, 1, 32, 35))


@torch.no_grad()
def test_attention_equals_torch_multihead_attention_with_bias_kv():
    attention = make_model().layers[0].self_attn
    torch_attention = torch.nn.MultiheadAttention(16, 2, add_bias_kv=True, batch_first=True).eval()
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "bias_k": "bias_k", "bias_v": "bias_v"}
    names |= {"out_proj.weight": "projection.weight", "out_proj.bias": "projection.bias"}
    torch_attention.load_state_dict({name: attention.get_parameter(ours).clone() for name, ours in names.items()})
    tokens = torch.randn(3, 5, 16)
    expected = torch_attention(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(attention(tokens)[0], expected)


@torch.no_grad()
def test_eager_and_sdpa_attention_agree():
    model, mels = make_model(), torch.randn(2, 2, 32, 36)
    sdpa = model(mels).pooler_output
    model.set_attn_implementation("eager")
    output = model(mels, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(output.pooler_output, sdpa)
    assert output.attentions[0].shape == (4, 2, 7, 8)  # 7 tokens attend to themselves and to the learned extra key
    assert len(output.hidden_states) == 3


@torch.no_grad()
def test_save_and_load_gives_identical_outputs_and_keeps_the_scale(tmp_path):
    model, mels = make_model(), torch.randn(1, 2, 32, 36)
    model.log_logit_scale.fill_(2.6)
    model.save_pretrained(tmp_path)
    loaded = ImageBindAudioModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(mels).pooler_output, model(mels).pooler_output)


@torch.no_grad()
def test_load_in_bfloat16_keeps_the_logarithm_of_the_scale_exact(tmp_path):
    make_model().save_pretrained(tmp_path)
    loaded = ImageBindAudioModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert loaded.log_logit_scale.dtype == torch.float32
    output = loaded(torch.randn(1, 2, 32, 36, dtype=torch.bfloat16)).pooler_output
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float().norm(dim=-1), torch.full((1, 2), 20.0), rtol=1e-2, atol=0)


def test_weights_absent_from_a_checkpoint_are_initialised_not_left_empty(tmp_path):
    model = make_model()
    parts = ("bias_k", "bias_v", "log_logit_scale", "position_embedding", "class_embedding")
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(parts)}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, info = ImageBindAudioModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.rpartition(".")[2] for name in info["missing_keys"]} == set(parts)
    assert loaded.log_logit_scale.item() == pytest.approx(model.config.logit_scale_init)
    for name, parameter in loaded.named_parameters():
        if name.endswith(parts):
            assert 0.01 < parameter.std() < 1, name


def test_gradient_checkpointing_gives_the_same_gradients():
    model, mels = make_model().train(), torch.randn(1, 2, 32, 36)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(mels).pooler_output[..., 0].sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_default_sizes_are_those_of_imagebind_huge():
    with torch.device("meta"):
        model = ImageBindAudioModel(ImageBindAudioConfig())
    assert model.config.patch_grid == (12, 19)
    assert model.embeddings.position_embedding.shape == (1, 229, 768)
    assert sum(isinstance(module, ImageBindAudioAttention) for module in model.modules()) == 12
    assert model.projection.weight.shape == (1024, 768)
