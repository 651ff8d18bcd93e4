"""A run's model card, and the checklist CLAIM filled in from its record, both in Markdown.

CLAIM is the Checklist for Artificial Intelligence in Medical Imaging in its update of 2024 (Tejani et al., Radiology:
Artificial Intelligence 6(4), 2024); the titles of its items are in our words. Nothing is invented: what the record does
not hold is left to the authors.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from yaml import YAMLError

from anomaly_lab.experiment.record import hidden_share
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import charts, decisions, html, run_report, shortcuts
from anomaly_lab.reports.charts import BASELINE_NAMES, figure
from anomaly_lab.reports.html import without_folders
from anomaly_lab.reports.record import Record, read_run

CARD, CLAIM = "model_card.md", "claim.md"
OPEN = "not recorded: the authors fill this in"
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_MARKUP = re.compile(r"([\\`*<>\[\]|])")
_MARK = re.compile(r"\n\n<!-- written by anomaly_lab, ([0-9a-f]{16}) -->\n\Z")  # with a digest of all that is before
_PREPARED = ("in_channels", "patch_size", "picture", "volume", "crop", "cut")  # sections of data that make the pixels


class Item(NamedTuple):
    """An item of the checklist.

    Attributes:
        number: of the update of 2024.
        section: part of a paper that it belongs to.
        title: what it asks for.
        answer: what the record says; empty if nothing.
    """

    number: int
    section: str
    title: str
    answer: str


def write_cards(run: Path) -> tuple[Path, Path]:
    """Write model_card.md and claim.md into a run folder, from the folder's content alone.

    One that somebody has edited is kept beside the new one, as model_card.edited.md or claim.edited.md (.edited2, …).

    Args:
        run: the run folder, finished or not.

    Returns:
        Paths of both.

    Raises:
        UserError: `run` is not a run folder, or one of its files cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.yaml").write_text("seed: 0")
        ...     [path.name for path in write_cards(Path(folder))]
        ['model_card.md', 'claim.md']
    """
    for name, text in _texts(run).items():
        path = run / name
        if path.is_file() and not _is_ours(path.read_text(encoding="utf-8", errors="replace")):
            path.rename(next(free for free in _edited(path) if not free.exists()))
        write_atomic(path, text)
    return run / CARD, run / CLAIM


def _edited(path: Path) -> Iterator[Path]:
    """Yield the names under which an edited card may be kept."""
    return (path.with_suffix(f".edited{number if number > 1 else ''}.md") for number in itertools.count(1))


def renew_cards(run: Path, finished: str | None = None) -> list[Path]:
    """Write the cards of a run that has changed again, those that are there and that nobody has edited.

    Args:
        run: the run folder.
        finished: when the run was finished, ISO 8601, if its record is still to say so.

    Returns:
        The cards that were left as they are though they are of the run as it was before: somebody has edited them.

    Raises:
        UserError: as `write_cards`.

    Examples:
        >>> renew_cards(Path("no such run"))
        []
    """
    there = [run / name for name in (CARD, CLAIM) if (run / name).is_file()]
    texts = _texts(run, finished) if there else {}
    edited = []
    for path in there:
        before = path.read_text(encoding="utf-8", errors="replace")
        mark = _MARK.search(before)
        if _is_ours(before):
            write_atomic(path, texts[path.name])
        elif not (mark and texts[path.name].endswith(mark[0])):
            edited.append(path)
    return edited


def _is_ours(text: str) -> bool:
    """Return whether a card is as it was written."""
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _digest(text[: mark.start()])


def _texts(run: Path, finished: str | None = None) -> dict[str, str]:
    """Return the cards by name; each ends with a mark by which an edited one is told."""
    record = read_run(run)
    if finished is not None:
        record = record._replace(provenance=record.provenance | {"finished": finished})
    record = record._replace(provenance=without_folders(record.provenance), config=without_folders(record.config))
    known = Known(record)
    jinja = html.environment(md=plain, figure=figure, counted=known.counted)
    jinja.autoescape = False  # Markdown has an escape of its own
    values = {"record": record, "known": known, "items": items(known), "open": OPEN, "names": BASELINE_NAMES}
    texts = {name: jinja.get_template(f"{name}.j2").render(values) for name in (CARD, CLAIM)}
    return {name: f"{text}\n\n<!-- written by anomaly_lab, {_digest(text)} -->\n" for name, text in texts.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(text: object) -> str:
    r"""Return a text that Markdown shows as it stands, in one line.

    Examples:
        >>> print(plain("a|b <script>\n*c*"))
        a\|b \<script\> \*c\*
    """
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


class Known:
    """What the record of a run says, in sentences; empty where it says nothing.

    Args:
        record: of the run.

    Examples:
        >>> record = Record("a/1", "", {"seed": 3}, {}, [], 0, [], [], None, {}, {})
        >>> Known(record).training
        'Seed 3'
    """

    def __init__(self, record: Record) -> None:
        self.record, self.metrics, self.provenance = record, record.metrics, record.provenance
        self.data: Mapping[str, Any] = self.provenance.get("data") or {}
        self.detector: Mapping[str, Any] = self.provenance.get("detector") or {}
        self.config = _tree(record.config)

    @property
    def name(self) -> str:
        """Class of the detector."""
        return str(self.detector.get("class") or "").rpartition(".")[2]

    @property
    def is_twin(self) -> bool:
        """Whether the images were generated."""
        return self.provenance.get("source") == "twin"

    @property
    def kind(self) -> str:
        """What kind of method it is."""
        if not self.name:
            return ""
        counts = (self.data.get("counts") or {}).get("train")
        if counts is None:
            return f"Anomaly detection by {self.name}"
        labels = "normal images alone" if not counts.get("anomalous") else "normal and anomalous images"
        return f"Anomaly detection by {self.name}, trained on {labels}"

    @property
    def source(self) -> str:
        """Where the images are from."""
        if self.is_twin:
            return (
                f"SYNTHETIC TWIN of {self.data.get('name')}: generated images in the layout of the real data, no "
                "patients; the figures say nothing about clinical performance"
            )
        return f"Real files of the data set {self.data['name']}" if self.data.get("name") else ""

    @property
    def excluded(self) -> str:
        """What was left out, and how many."""
        parts = []
        if "skipped" in self.data:
            parts.append(f"{len(self.data['skipped'])} unreadable files left out")
        if left := self.data.get("left_out"):
            parts.append(f"left out by rule: {_pairs(left)}")
        if (unused := self.data.get("in_no_split") or {}).get("count"):
            parts.append(f"{unused['count']} cases in no split, by the split rule")
        return "; ".join(parts)

    @property
    def preparation(self) -> str:
        """How files become the detector's input."""
        section = self.config.get("data") or {}
        return _pairs({key: section[key] for key in _PREPARED if section.get(key) is not None})

    @property
    def subsets(self) -> str:
        """Which part of the data was used."""
        parts = [f"limits, drawn with the seed: {_pairs(limits)}"] if (limits := self.data.get("limits")) else []
        if self.data.get("contamination"):
            parts.append(f"{hidden_share(self.data):.1%} of the training images are anomalous, as configured")
        return "; ".join(parts)

    @property
    def unreadable(self) -> str:
        """What becomes of files that cannot be read."""
        rule = (((self.config.get("data") or {}).get("store")) or {}).get("on_bad")
        words = {"fail": "a file that cannot be read ends the run", "skip": "files that cannot be read are left out"}
        return f"{words[rule]} (data.store.on_bad={rule})" if rule in words else ""

    @property
    def images(self) -> str:
        """What the files of the training are like."""
        found = self.data.get("input") or {}
        parts = [f"{count} × {kind}" for kind, count in (found.get("kinds") or {}).items()]
        parts += [f"modality {name}: {count}" for name, count in (found.get("modalities") or {}).items()]
        parts += [f"{title} {_bounds(found[key])}{unit}" for key, title, unit in _MEASURES if found.get(key)]
        return ", ".join(parts)

    @property
    def split(self) -> str:
        """How cases were assigned to the splits."""
        return str(self.data.get("split_rule") or "")

    @property
    def disjoint(self) -> str:
        """At which level the splits are apart, and what the audit found."""
        audit = self.data.get("audit")
        if not audit or "checked" not in audit:
            return ""
        shared = len(audit.get("shared_patients") or [])
        by = ((self.config.get("data") or {}).get("split") or {}).get("by")
        level = "By patient, as far as the data set tells patients apart. " if by in (None, "patient") else f"By {by}. "
        pairs = f"{audit.get('crossing', 0)} identical or nearly identical pairs across splits"
        return f"{level}An audit of {audit['checked']} images found {shared} patients in several splits and {pairs}"

    @property
    def model(self) -> str:
        """Networks and settings."""
        sizes = _pairs({name: html.whole(count) for name, count in (self.detector.get("parameters") or {}).items()})
        section = {key: value for key, value in (self.config.get("detector") or {}).items() if key != "_target_"}
        parts = [self.name] if self.name else []
        parts += [f"parameters: {sizes}"] if sizes else []
        parts += [f"settings: {_pairs(section)}"] if section else []
        return "; ".join(parts)

    @property
    def software(self) -> str:
        """Versions, and the code that made the run."""
        versions = {name: version for name, version in (self.provenance.get("versions") or {}).items() if version}
        return "; ".join(filter(None, [_pairs(versions), self.code]))

    @property
    def code(self) -> str:
        """Commit and fingerprints."""
        git, code = self.provenance.get("git") or {}, self.provenance.get("code")
        parts = [f"anomaly_lab at commit {git['commit'][:12]}"] if git.get("commit") else []
        parts += ["with uncommitted changes"] if git.get("dirty") else []
        parts += [f"fingerprints of the code: {_pairs(code)}"] if isinstance(code, Mapping) else []
        return ", ".join(parts)

    @property
    def beginning(self) -> str:
        """What weights were before the training."""
        if start := self.provenance.get("started_from"):
            return f"A finished phase of the run {start.get('run')}, phase {start.get('phase')}"
        if begun := self.detector.get("begun_with"):
            return f"Pretrained weights: {_pairs(begun)}"
        seed = self.provenance.get("seed")
        has_weights = any((self.detector.get("parameters") or {}).values())
        return f"Drawn at random with the seed {seed}" if has_weights and seed is not None else ""

    @property
    def training(self) -> str:
        """Budget, lengths, batches, augmentation, machine and time."""
        phases, section = self.detector.get("phases") or {}, self.config.get("data") or {}
        machine, seconds = self.provenance.get("machine") or {}, self.provenance.get("seconds") or {}
        parts = {
            "budget": self.provenance.get("budget"),
            "seed": self.provenance.get("seed"),
            "iterations": ", ".join(f"{name} {length}" for name, length in phases.items()),
            "batch size": section.get("batch_size"),
            "augmentation": _pairs(section["augment"]) if section.get("augment") else "",
            "precision": self.provenance.get("precision"),
            "machine": ", ".join(str(machine[key]) for key in ("cpu", "gpu") if machine.get(key)),
            "time": ", ".join(f"{name} {html.duration(length)}" for name, length in seconds.items()),
        }
        text = "; ".join(f"{name} {value}" for name, value in parts.items() if value not in (None, ""))
        return text[:1].upper() + text[1:]

    @property
    def choice(self) -> str:
        """Which checkpoint is the result."""
        choice = self.provenance.get("checkpoint") or {}
        if not choice.get("rule"):
            return ""
        used = ", chosen with test labels" if choice.get("auroc") is not None else ", without test labels"
        if choice["rule"] == "asked for":
            used = ", chosen by hand; whether by test results is not recorded"
        return f"Rule “{choice['rule']}”, iteration {choice.get('iteration')} ({choice.get('file')}){used}"

    @property
    def threshold(self) -> str:
        """The threshold, and what it is for."""
        found = self.metrics.get("threshold") or {}
        if found.get("value") is None:
            return ""
        purpose = decisions.PURPOSES.get(str(found.get("purpose")))
        meant = f"; the purpose, set beforehand: {purpose}" if purpose else ""
        return f"{html.number(found['value'])}: {decisions.of_threshold(found)}{meant}"

    @property
    def measures(self) -> str:
        """Which figures are given."""
        names = [name for name in self.metrics.get("detector") or {} if name]
        pixels = ["pixel AUROC", "PRO"] if self.metrics.get("pixels") else []
        return ", ".join([name.replace("_", " ").replace("auroc", "AUROC") for name in names] + pixels)

    @property
    def uncertainty(self) -> str:
        """How intervals and tests were computed."""
        bootstrap = self.metrics.get("bootstrap") or {}
        if not bootstrap:
            return ""
        if remark := (self.metrics.get("intervals") or {}).get("remark"):
            return str(remark).rstrip(".")
        return (
            f"{bootstrap.get('level', 0.95):.0%} intervals for new patients. AUROC and its differences: DeLong’s "
            "variance by patient (Obuchowski 1997), p-values after Holm’s correction for the number of baselines; "
            f"other figures: bootstrap by {bootstrap.get('unit')}, {bootstrap.get('replicates')} replicates"
        )

    @property
    def shortcuts(self) -> str:
        """By which simple numbers the test split can be told apart."""
        found = self.metrics.get("shortcuts")
        if not found:
            return ""
        said = " ".join(notice.text for notice in shortcuts.banners(found))
        return said or "No single number that was tried tells the test split’s classes apart beyond chance"

    @property
    def result(self) -> str:
        """AUROC, best baseline, and the sentence that compares them."""
        found = (self.metrics.get("detector") or {}).get("auroc")
        if found is None:
            return ""
        counts = self.counted((self.metrics.get("counts") or {}).get("test") or {})
        sentence = str((self.metrics.get("versus_baselines") or {}).get("sentence") or "").rstrip(".")
        return f"AUROC {figure(found)} on {counts} test images. {sentence}".strip().rstrip(".")

    @property
    def at_threshold(self) -> str:
        """Sensitivity, specificity and predictive values at the threshold."""
        if not self.threshold:
            return ""
        found = self.metrics.get("detector") or {}
        named = {"recall": "sensitivity", "specificity": "specificity", "balanced_accuracy": "balanced accuracy"}
        parts = [f"{title} {figure(found[key])}" for key, title in named.items() if key in found]
        use = self.metrics.get("decisions") or {}
        if ours := use.get("detector"):
            values = ", ".join(f"{key.upper()} {figure(ours[key])}" for key in ("ppv", "npv") if key in ours)
            parts.append(f"at a prevalence of {use.get('prevalence')}: {values}")
        return "; ".join(parts)

    @property
    def failures(self) -> str:
        """How many cases were called wrongly, and where they are shown."""
        calls = run_report.calls(self.record.scores)
        if not calls:
            return ""
        return (
            f"{calls['fn']} anomalous test images missed, {calls['fp']} false alarms; report.html shows the most "
            "extreme, scores.csv lists all"
        )

    @property
    def maps(self) -> str:
        """Whether anomaly maps exist, and how well they find lesions."""
        pixels = self.metrics.get("pixels") or {}
        if pixels.get("auroc") is not None:
            return (
                f"Anomaly maps; against {pixels.get('num_masks')} lesion masks, pixel AUROC {figure(pixels['auroc'])}"
            )
        return "Anomaly maps; no lesion masks to compare them with" if self.record.has("overlay") else ""

    @property
    def caveats(self) -> list[str]:
        """Everything that the report warns of."""
        notices = [*run_report.banners(self.provenance, self.metrics), *run_report.stalled(self.record.log)]
        return [f"{notice.title}: {notice.text}" for notice in notices]

    def counted(self, counts: Mapping[str, Any]) -> str:
        """Return numbers of normal and anomalous images in words."""
        return f"{counts.get('normal', 0)} normal and {counts.get('anomalous', 0)} anomalous"

    @property
    def numbers(self) -> list[tuple[str, str, object]]:
        """Of each split: name, images, patients."""
        patients = self.data.get("patients") or {}
        counts = self.data.get("counts") or self.metrics.get("counts") or {}
        return [
            (_SPLITS.get(split, split), self.counted(found), patients.get(split, "–"))
            for split, found in counts.items()
        ]

    @property
    def contenders(self) -> list[tuple[str, str]]:
        """Detector and baselines with their AUROC."""
        rows = charts.contenders(self.metrics) if self.metrics.get("detector") else []
        return [(name, figure(found["auroc"])) for name, _, found in rows if found.get("auroc") is not None]


def items(known: Known) -> list[Item]:
    """Fill in the checklist.

    Args:
        known: what the record says.

    Examples:
        >>> record = Record("a/1", "", {}, {}, [], 0, [], [], None, {}, {})
        >>> filled = items(Known(record))
        >>> len(filled), [item.number for item in filled if item.answer]
        (44, [27, 40, 42])
    """
    return [
        Item(number, section, title, answer(known)) for number, (section, title, answer) in enumerate(_ITEMS, start=1)
    ]


def _nothing(_: Known) -> str:
    return ""


def _numbers(known: Known) -> str:
    parts = [f"{split}: {counts} images of {patients} patients" for split, counts, patients in known.numbers]
    return "; ".join(filter(None, [*parts, known.excluded]))


def _performance(known: Known) -> str:
    return "; ".join(f"{name}: AUROC {value}" for name, value in known.contenders)


def _availability(known: Known) -> str:
    if not known.code:
        return ""
    print_of = known.data.get("fingerprint")
    content = f"; the content of the data has the fingerprint {print_of[:16]}" if print_of else ""
    return f"Software: {known.code}, Apache-2.0{content}. Whether model and data are available: the authors"


_ITEMS: Sequence[tuple[str, str, Callable[[Known], str]]] = (
    ("Title and abstract", "Named as a study of AI, with the kind of method", lambda known: known.kind),
    ("Title and abstract", "Structured summary of design, methods, results, conclusions", _nothing),
    ("Introduction", "Background, intended use and clinical role", _nothing),
    ("Introduction", "Aims and hypotheses", _nothing),
    ("Study design", "Prospective or retrospective", _nothing),
    ("Study design", "Goal of the study", _nothing),
    ("Data", "Sources", lambda known: known.source),
    ("Data", "Inclusion and exclusion", lambda known: known.excluded),
    ("Data", "Preprocessing", lambda known: known.preparation),
    ("Data", "Selection of subsets", lambda known: known.subsets),
    ("Data", "De-identification", _nothing),
    ("Data", "Missing and unreadable data", lambda known: known.unreadable),
    ("Data", "Acquisition of the images", lambda known: known.images),
    ("Reference standard", "How it was defined and obtained", _nothing),
    ("Reference standard", "Why it was chosen", _nothing),
    ("Reference standard", "Who annotated", _nothing),
    ("Reference standard", "Annotation of the test set", _nothing),
    ("Reference standard", "Variability between and within annotators", _nothing),
    ("Partitions", "How data were assigned", lambda known: known.split),
    ("Partitions", "Level at which they are disjoint", lambda known: known.disjoint),
    ("Testing data", "Intended sample size", _nothing),
    ("Model", "Detailed description", lambda known: known.model),
    ("Model", "Software", lambda known: known.software),
    ("Model", "Initialisation of parameters", lambda known: known.beginning),
    ("Training", "Details of the training", lambda known: known.training),
    ("Training", "How the final model was selected", lambda known: known.choice),
    ("Training", "Ensembles", lambda _: "None: the weights of one checkpoint give the scores"),
    ("Evaluation", "Measures of performance", lambda known: known.measures),
    ("Evaluation", "Uncertainty and significance", lambda known: known.uncertainty),
    ("Evaluation", "Robustness", lambda known: known.shortcuts),
    ("Evaluation", "Explainability", lambda known: known.maps),
    ("Evaluation", "Internal testing", lambda known: known.result),
    ("Evaluation", "External testing", _nothing),
    ("Evaluation", "Registration of a clinical trial", _nothing),
    ("Results", "Numbers included and excluded", _numbers),
    ("Results", "Demographic and clinical characteristics", _nothing),
    ("Results", "Performance and its uncertainty", _performance),
    ("Results", "Diagnostic performance at the threshold", lambda known: known.at_threshold),
    ("Results", "Analysis of failures", lambda known: known.failures),
    ("Discussion", "Limitations", lambda known: " ".join(known.caveats)),
    ("Discussion", "Implications for practice", _nothing),
    ("Other", "Protocol and technical details", lambda _: "config.yaml, provenance.json and report.html of this run"),
    ("Other", "Availability of software, model and data", _availability),
    ("Other", "Funding and the role of funders", _nothing),
)
_MEASURES = (("size", "size", " pixels"), ("spacing", "spacing", " mm"), ("bits", "stored bits", ""))


def _tree(text: str) -> dict[str, Any]:
    """Return a configuration as nested mappings, without looking up what it refers to; empty if it is damaged."""
    try:
        tree = OmegaConf.to_container(OmegaConf.create(text or "{}"), resolve=False)
    except (YAMLError, ValueError):
        return {}
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def _pairs(tree: object) -> str:
    """Return nested mappings as `key=value`, without what is None."""
    if not isinstance(tree, Mapping):
        return str(tree)
    return ", ".join(f"{key}={value}" for key, value in _leaves(tree, ""))


def _leaves(tree: Mapping[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}", value


def _bounds(bounds: object) -> str:
    """Return ranges as text: 134–285 × 156–343."""
    if not isinstance(bounds, list):
        return str(bounds)
    return " × ".join(f"{low:.4g}" if low == high else f"{low:.4g}–{high:.4g}" for low, high in bounds)
