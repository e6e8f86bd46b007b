"""Our numbers beside the official scorers' on published systems' outputs, to the digits printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peftlab.metrics import score

from .conftest import Case

E2E = ["e2e_dev_ukp_model_d_seed1", "e2e_example10", "e2e_test_slug", "e2e_test_tgen"]
WEBNLG = [f"webnlg17_PKUWriter_{part}-cat" for part in ("all", "new", "old")]
Load = Callable[[str], Case]


@pytest.mark.parametrize("name", E2E)
def test_bleu_of_the_e2e_challenge(case: Load, name: str) -> None:
    system = case(name)
    ours = score("bleu-e2e", system.predictions, system.references).corpus["bleu-e2e"]
    assert f"{ours / 100:.4f}" == f"{system.expected['official_run_perl']['BLEU']:.4f}"


@pytest.mark.parametrize("name", WEBNLG)
def test_bleu_of_webnlg(case: Load, name: str) -> None:
    system = case(name)
    ours = score("bleu-webnlg", system.predictions, system.references).corpus["bleu-webnlg"]
    assert f"{ours:.2f}" == f"{system.expected['published']['BLEU']:.2f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", WEBNLG)
def test_ter_is_within_the_tolerance_of_tercom(case: Load, name: str) -> None:
    system = case(name)
    ours = score("ter", system.predictions, system.references).corpus["ter"]
    assert ours / 100 == pytest.approx(system.expected["published"]["TER"], abs=0.0015)


def test_rouge_of_dialogsum(case: Load) -> None:
    system = case("dialogsum_test_bart_large")
    expected = system.expected["rouge_score_mean_stemmed"]
    for variant in ("rouge1", "rouge2", "rougeL"):
        name = f"{variant}-stem"
        for index in range(3):
            alone = [[targets[index]] for targets in system.references]
            ours = score(name, system.predictions, alone).corpus[name]
            assert f"{100 * ours:.4f}" == f"{expected[f'vs_summary{index + 1}'][variant]:.4f}"
        ours = score(name, system.predictions, system.references).corpus[name]
        assert f"{100 * ours:.4f}" == f"{expected['score_multi_max_of_3'][variant]:.4f}"


def test_unstemmed_rouge_of_dialogsum(case: Load) -> None:
    system = case("dialogsum_test_bart_large")
    first = [targets[:1] for targets in system.references]
    for variant, wanted in system.expected["rouge_score_mean_unstemmed_vs_summary1"].items():
        ours = score(variant, system.predictions, first).corpus[variant]
        assert f"{100 * ours:.4f}" == f"{wanted:.4f}"


def test_dialogsum_convention_is_near_the_published_draw(case: Load) -> None:
    """The published figure is the median of one unseeded bootstrap: equal up to its noise."""
    system = case("dialogsum_test_bart_large")
    for variant in ("rouge1", "rouge2", "rougeL"):
        name = f"{variant}-dialogsum"
        ours = score(name, system.predictions, system.references).corpus[name]
        published = system.expected["published"][f"{variant}_vs_summary1"]
        assert 100 * ours == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize("suffix", ["", "-stem"])
def test_rouge_against_many_references(case: Load, suffix: str) -> None:
    system = case("e2e_test_tgen")
    key = "rouge_score_score_multi_" + ("stemmed" if suffix else "unstemmed")
    for variant, wanted in system.expected[key].items():
        name = variant + suffix
        ours = score(name, system.predictions, system.references).corpus[name]
        assert f"{ours:.4f}" == f"{wanted:.4f}"


@pytest.mark.parametrize("name", E2E)
def test_nist_cider_and_rouge_of_the_e2e_challenge(case: Load, name: str) -> None:
    system = case(name)
    names = {"nist": "NIST", "cider": "CIDEr", "rougeL-coco": "ROUGE_L"}
    scores = score(list(names), system.predictions, system.references)
    for ours, official in names.items():
        wanted = system.expected["official_run_perl"][official]
        assert f"{scores.corpus[ours]:.4f}" == f"{wanted:.4f}", ours


@pytest.mark.parametrize("name", [n for n in E2E if n != "e2e_dev_ukp_model_d_seed1"])
def test_nist_of_the_flag_p(case: Load, name: str) -> None:
    system = case(name)
    ours = score("nist-e2e-p", system.predictions, system.references).corpus["nist-e2e-p"]
    assert f"{ours:.4f}" == f"{system.expected['official_run_python_flag_p']['NIST']:.4f}"


@pytest.mark.parametrize("name", ["e2e_example10", "e2e_test_tgen"])
def test_scores_per_example(case: Load, name: str) -> None:
    system = case(name)
    lines = (system.folder / "official_segment_scores.tsv").read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t")
    official = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    scores = score("cider,rougeL-coco", system.predictions, system.references).per_example
    for row, cider, rouge in zip(official, scores["cider"], scores["rougeL-coco"], strict=True):
        assert cider == pytest.approx(float(row["CIDEr"]), abs=6e-5)
        assert rouge == pytest.approx(float(row["ROUGE_L"]), abs=6e-5)
