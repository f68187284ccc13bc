"""The testbed's tokenizer: one token per white-space separated word, with a Qwen3-style chat template.

The template honours `enable_thinking` (as Qwen3's does) and `filler_tokens`, the number of dots that stand in for the
thought in the third mode, `filler`.
"""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from normprobe.problems.testbed.vocabulary import END, FILLER, PAD, UNKNOWN, VOCABULARY

CHAT_TEMPLATE = (
    "{%- set filler_tokens = filler_tokens | default(0) %}\n"
    "{%- for message in messages %}\n"
    "{{- '<|im_start|> ' + message['role'] + ' ' + message['content'] + ' <|im_end|> ' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "{{- '<|im_start|> assistant <think>' }}\n"
    "{%- if filler_tokens %}\n"
    f"{{{{- ' {FILLER}' * filler_tokens + ' </think>' }}}}\n"
    "{%- elif enable_thinking is defined and not enable_thinking %}\n"
    "{{- ' </think>' }}\n"
    "{%- endif %}\n"
    "{%- endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer as it is saved with tiny-thinker's weights; it loads there through `AutoTokenizer`."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    words.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
