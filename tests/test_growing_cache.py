import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig

from training.growing_cache import ROOM, GrowingLayer, growing_cache

CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=512
)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}])
def test_answers_are_those_of_transformers_own_cache(options):
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    input_ids = torch.randint(3, 50, (4, 9))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, :4] = 0
    written = []
    for given in ({}, {"past_key_values": growing_cache(model.config)}):
        torch.manual_seed(1)
        written.append(
            model.generate(
                input_ids,
                attention_mask=attention_mask,
                max_new_tokens=ROOM + 20,
                pad_token_id=0,
                eos_token_id=None,
                **options,
                **given,
            )
        )
    assert written[0].shape[1] == 9 + ROOM + 20
    assert torch.equal(*written)


def test_what_is_new_is_written_beside_what_was_there_until_there_is_no_room():
    layer = GrowingLayer()
    states = torch.randn(2, 3, 5 + ROOM + 1, 4)
    places = []
    for begin, end in ((0, 5), (5, 6), (6, 5 + ROOM), (5 + ROOM, 5 + ROOM + 1)):
        keys, values = layer.update(states[:, :, begin:end], -states[:, :, begin:end])
        assert torch.equal(keys, states[:, :, :end])
        assert torch.equal(values, -states[:, :, :end])
        assert layer.get_seq_length() == end
        places.append(keys.data_ptr())
    assert places[0] == places[1] == places[2] != places[3]


def test_states_that_were_reordered_cropped_or_dropped_are_not_written_over():
    layer = GrowingLayer()
    states = torch.randn(2, 3, 6, 4)
    layer.update(states[:, :, :5], states[:, :, :5])
    layer.reorder_cache(torch.tensor([1, 1]))
    keys, _ = layer.update(states[:, :, 5:], states[:, :, 5:])
    assert torch.equal(keys, torch.cat([states[[1, 1], :, :5], states[:, :, 5:]], dim=2))
    layer.crop(-2)
    keys, _ = layer.update(states[:, :, :1], states[:, :, :1])
    assert torch.equal(keys, torch.cat([states[[1, 1], :, :4], states[:, :, :1]], dim=2))
    layer.reset()
    keys, _ = layer.update(states[:1], states[:1])
    assert torch.equal(keys, states[:1])


def test_layers_that_slide_are_left_to_transformers():
    config = MistralConfig(num_hidden_layers=2, sliding_window=8)
    assert not any(isinstance(layer, GrowingLayer) for layer in growing_cache(config).layers)
    assert [type(layer) for layer in growing_cache(CONFIG).layers] == [GrowingLayer, GrowingLayer]
