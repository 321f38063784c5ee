# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mBART's vocabulary: a SentencePiece model, four special tokens before its pieces, language tags after them."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from class_jax.errors import InputError

VOCABULARY_FILE = "sentencepiece.bpe.model"
_EOS_ID = 2
_UNK_ID = 3
# The model's own three special pieces give way to four of fairseq: <s> <pad> </s> <unk>.
_SHIFT = 1
_MASKS = 1
# In the order of their ids. mBART knows the first 25, mBART-50 all.
_TAGS_25 = (
    *("ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX"),
    *("kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN"),
    "zh_CN",
)
_TAGS_50 = (
    *_TAGS_25,
    *("af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN"),
    *("mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK"),
    *("xh_ZA", "gl_ES", "sl_SI"),
)


class MBartVocabulary:
    """Text to mBART's token ids, and the ids of its language tags.

    Args:
      path: the SentencePiece model, or a folder that holds a `sentencepiece.bpe.model`.
      vocab_size: rows of the model's embedding; they distinguish mBART (25 tags) from mBART-50 (52).

    Attributes:
      model: the model file's bytes.
      fingerprint: their SHA-256.
      is_mbart50: whether a sequence begins with its tag; in mBART it ends with it.

    Raises:
      InputError: if there is no such file, it is no SentencePiece model, or it is another model's.
    """

    def __init__(self, path: str | os.PathLike, vocab_size: int):
        file = Path(path) / VOCABULARY_FILE if Path(path).is_dir() else Path(path)
        remedy = f"give mBART's {VOCABULARY_FILE}"
        try:
            self.model = file.read_bytes()
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except OSError as error:
            raise InputError(f"can't be read ({error.strerror})", file=file, remedy=remedy) from error
        except RuntimeError as error:
            raise InputError("not a SentencePiece model", file=file, remedy=remedy) from error
        self.fingerprint = hashlib.sha256(self.model).hexdigest()
        pieces = self._processor.get_piece_size()
        tags = {pieces + _SHIFT + _MASKS + len(known): known for known in (_TAGS_25, _TAGS_50)}
        if vocab_size not in tags:
            wanted = " or ".join(map(str, tags))
            raise InputError(
                f"its {pieces} pieces want a model of {wanted} embeddings, not {vocab_size}: it is another model's",
                file=file,
                remedy="give the vocabulary that the model was trained with",
            )
        self.is_mbart50 = tags[vocab_size] is _TAGS_50
        self._tags = {tag.split("_")[0]: pieces + _SHIFT + i for i, tag in enumerate(tags[vocab_size])}

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, without tag and end of sequence."""
        return [id + _SHIFT if id else _UNK_ID for id in self._processor.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of token ids up to the end of sequence that follows it, without special tokens and tags."""
        pieces: list[int] = []
        for id in map(int, ids):
            if id == _EOS_ID and pieces:
                break
            if _UNK_ID < id < self._processor.get_piece_size() + _SHIFT:
                pieces.append(id - _SHIFT)
        return self._processor.decode(pieces)

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that have a tag."""
        return sorted(self._tags)

    def tag(self, language: str | None) -> int:
        """Returns the id of a language's tag; `zh_tw` and its like are `zh`.

        Raises:
          InputError: if the language is not given or has no tag; the known ones are listed.
        """
        code = "" if language is None else language.strip().split("_")[0]
        if code not in self._tags:
            raise InputError(
                f"the model has no tag for the language {language!r}",
                key="language",
                remedy=f"known: {', '.join(self.languages)}; or score without tags",
            )
        return self._tags[code]
