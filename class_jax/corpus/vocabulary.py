# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The vocabulary: a SentencePiece model with T5's special ids (pad 0, end of sequence 1, unknown 2)."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from class_jax.common.files import replacing
from class_jax.corpus.sampling import uniform_sample
from class_jax.errors import InputError

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
_HUB_FILE = "spiece.model"
# SentencePiece drops longer training sentences without a word; longer texts are cut at blanks instead.
_MAX_SENTENCE_BYTES = 16_384


class Vocabulary:
    """Text to token ids and back.

    Attributes:
      model: the model file's bytes.
      path: where the model was loaded from (None if it was given as bytes).
      fingerprint: SHA-256 of the model file's bytes, in hex. It covers the pieces, their scores and the
        normalisation rules, so equal fingerprints mean equal encodings. It does not cover `size`.
      pieces: number of pieces in the model.
      size: rows of the embedding table; at least `pieces` (mT5 has 250,112 rows for 250,100 pieces).
      pad_id, eos_id, unk_id: 0, 1, 2.
    """

    pad_id, eos_id, unk_id = PAD_ID, EOS_ID, UNK_ID

    def __init__(self, model: bytes, path: str | os.PathLike | None = None, size: int | None = None) -> None:
        """Makes a vocabulary of a SentencePiece model's bytes; see `load` for the arguments and errors."""
        try:
            if not model:
                raise RuntimeError("it is empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"not a SentencePiece model ({reason})", file=path, remedy="give a spiece.model"
            ) from error
        self.model = model
        self.path = None if path is None else Path(path)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.pieces = self._processor.get_piece_size()
        self.size = self.pieces if size is None else size
        self._check()

    @classmethod
    def load(cls, path_or_hub_id: str | os.PathLike, size: int | None = None) -> "Vocabulary":
        """Loads a vocabulary.

        Args:
          path_or_hub_id: a SentencePiece model file, a folder that holds a `spiece.model`, or the id of a
            Hugging Face repository that does (`google/mt5-large`), which is downloaded once and kept in
            the Hub's cache.
          size: rows of the model's embedding table, if more than the pieces.

        Raises:
          InputError: if there is no such file, it can't be downloaded, it is no SentencePiece model, its
            special ids are not T5's, or `size` is below the number of pieces.
        """
        path = Path(path_or_hub_id)
        if path.is_dir():
            path = path / _HUB_FILE
        if not path.is_file():
            path = _download(str(path_or_hub_id))
        try:
            return cls(path.read_bytes(), path, size)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", file=path) from error

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, without an end of sequence."""
        return self._processor.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text, without ends of sequence; faster than one by one."""
        return self._processor.encode(list(texts), num_threads=1)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of token ids.

        Padding, ends of sequence, label padding (negative ids) and the embedding rows beyond the last
        piece are left out.
        """
        return self._processor.decode([i for i in map(int, ids) if EOS_ID < i < self.pieces])

    def piece_texts(self) -> list[str]:
        """Text of every piece by id, "▁" for a blank; empty for control pieces, bytes and the unknown piece."""
        processor = self._processor

        def special(i: int) -> bool:
            return processor.is_control(i) or processor.is_byte(i) or processor.is_unknown(i)

        return ["" if special(i) else processor.id_to_piece(i) for i in range(self.pieces)]

    def __repr__(self) -> str:
        return f"Vocabulary({str(self.path)!r}, size={self.size}, fingerprint={self.fingerprint[:12]})"

    def _check(self) -> None:
        found = {"pad": self._processor.pad_id(), "eos": self._processor.eos_id(), "unk": self._processor.unk_id()}
        wanted = {"pad": PAD_ID, "eos": EOS_ID, "unk": UNK_ID}
        wrong = [f"{name} is {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]]
        if wrong:
            raise InputError(
                "special ids are not T5's: " + ", ".join(wrong),
                file=self.path,
                remedy="use a T5 or mT5 vocabulary, or train one with pad_id=0 eos_id=1 unk_id=2",
            )
        if self.size < self.pieces:
            raise InputError(
                f"the model embeds {self.size} tokens, fewer than the vocabulary's {self.pieces} pieces",
                file=self.path,
                remedy=f"set the vocabulary size to at least {self.pieces}",
            )


def train_vocabulary(
    texts: Iterable[str],
    path: str | os.PathLike,
    size: int,
    *,
    character_coverage: float = 0.9999,
    byte_fallback: bool = True,
    symbols: Sequence[str] = (),
    num_threads: int = 4,
    max_texts: int = 1_000_000,
    seed: int = 0,
) -> Vocabulary:
    """Trains a unigram vocabulary, by default with byte fallback (nothing is ever unknown), and writes it to `path`.

    The same texts in the same order and the same arguments give the same bytes.

    Args:
      texts: a stream of texts; line ends separate sentences.
      path: where the model goes, whole or not at all.
      size: number of pieces, with the 3 special ones and the 256 bytes.
      character_coverage: share of the characters that get pieces of their own.
      byte_fallback: other characters become their bytes; without it, a run of them becomes one unknown piece, which
        suits a model that starts from nothing: it would meet most bytes only after training.
      symbols: texts that are one piece each, wherever they occur. SentencePiece makes no piece of a word, however
        frequent, that no other word contains, such as the prefixes of questions and passages.
      num_threads: threads of the trainer. Sums of floats depend on it, and so may the result.
      max_texts: if there are more texts, a uniform sample of this many is used (and held in memory).
      seed: of that sample.

    Raises:
      InputError: if there is no text, or too little or too much variety of it for `size`; the message
        names the largest or smallest size possible.
    """
    sample = uniform_sample(texts, max_texts, seed)
    model = io.BytesIO()
    try:
        if not any(not text.isspace() and text for text in sample):
            raise InputError("no text to train a vocabulary on", file=path)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(sample),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            user_defined_symbols=list(symbols),
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            num_threads=num_threads,
            max_sentence_length=_MAX_SENTENCE_BYTES,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise _training_error(error, path, size) from error
    with replacing(path, "wb") as file:
        file.write(model.getvalue())
    return Vocabulary(model.getvalue(), path)


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        # SentencePiece cuts what it is given only at line feeds and refuses NULs.
        for line in text.replace("\0", " ").splitlines():
            while len(line) * 4 > _MAX_SENTENCE_BYTES and len(line.encode()) > _MAX_SENTENCE_BYTES:
                limit = _MAX_SENTENCE_BYTES // 4
                cut = line.rfind(" ", 1, limit)
                cut = limit if cut < 0 else cut
                yield line[:cut]
                line = line[cut:].lstrip()
            if line.strip():
                yield line


def _training_error(error: Exception, path: str | os.PathLike, size: int) -> InputError:
    """Translates what SentencePiece says of a size that the texts can't fill, or that can't hold their characters."""
    reason = str(error)
    high = re.search(r"too high .*<= (\d+)", reason)
    low = re.search(r"smaller than required_chars\. (\d+) vs (\d+)", reason)
    if high:
        return InputError(
            f"the texts are too few for a vocabulary of {size} pieces",
            file=path,
            remedy=f"the largest size possible is {high[1]}: set that, or give more text",
        )
    if low:
        return InputError(
            f"a vocabulary of {size} pieces can't hold the texts' characters",
            file=path,
            remedy=f"set a size of more than {low[2]}, or a lower character_coverage",
        )
    return InputError(f"the vocabulary could not be trained ({reason.strip()})", file=path)


def _download(hub_id: str) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub_id) or hub_id.endswith(".model"):
        raise InputError("no such vocabulary file", file=hub_id, remedy=f"give the path of a {_HUB_FILE}")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise InputError(
            "no such file, and the Hugging Face Hub can't be asked without huggingface_hub",
            file=hub_id,
            remedy="pip install huggingface_hub, or give a path",
        ) from error
    try:
        try:
            return Path(huggingface_hub.hf_hub_download(hub_id, _HUB_FILE, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            return Path(huggingface_hub.hf_hub_download(hub_id, _HUB_FILE))
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.HFValidationError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(hub_id) from error
        raise InputError(f"no such file, and no {_HUB_FILE} on the Hugging Face Hub", file=hub_id) from error
    except Exception as error:  # the Hub's client lets its transport's many errors through
        raise _unreachable(hub_id) from error


def _unreachable(hub_id: str) -> InputError:
    return InputError(
        "neither a local file nor in the Hub's cache, and the Hugging Face Hub can't be reached",
        file=hub_id,
        remedy=f"download https://huggingface.co/{hub_id}/resolve/main/{_HUB_FILE} elsewhere and give its path",
    )
