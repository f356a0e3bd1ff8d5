//! The measures of a benchmark: what each is called, where it comes from, and its value for one request.
//!
//! Published numbers of one editor differ because different things are called by one name, so every definition that is
//! in use is computed from the same answers and shown beside the others. Formulas are those of
//! [`locus_metrics::editing`] and [`locus_metrics::text`].

use locus_metrics::editing::{
    Outcome, all_correct, free_accuracy, new_wins, ngram_entropy, token_agreement, true_holds,
};
use locus_metrics::text::{TfIdf, words};
use locus_metrics::token::mean;
use serde::{Deserialize, Serialize};

use super::case::{Answer, Case, Observation, Probe, ProbeKind};

/// How a measure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A share, a difference of probabilities or an entropy, written times 100 as in the papers.
    Hundredth,
    /// Nats per token.
    Nats,
}

/// One definition.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measure {
    /// Name in files.
    pub key: &'static str,
    /// Name in the paper, or what comes nearest to one.
    pub label: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// Where the definition comes from.
    pub source: &'static str,
    /// The definition on a line.
    pub definition: &'static str,
    /// Value for one request.
    #[serde(skip)]
    of: fn(&Judged) -> Option<f64>,
}

/// Change on neutral text, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// NLL after the edit minus NLL before.
    pub nll: f64,
    /// Mean KL divergence from the distribution of the next token before to that after.
    pub kl: f64,
}

/// What is known about one request.
#[derive(Clone, Copy)]
pub struct Judged<'a> {
    /// What was asked.
    pub case: &'a Case,
    /// Answers before the edit.
    pub before: &'a Observation,
    /// Answers after it.
    pub after: &'a Observation,
    /// Change on neutral text.
    pub drift: Option<Drift>,
    /// Weights of terms, and the text of reference about the new target.
    pub reference: Option<(&'a TfIdf, &'a str)>,
}

const ROME: &str = "Meng et al. 2022a (ROME)";
const MEMIT: &str = "Meng et al. 2022b (MEMIT)";
const ZSRE: &str = "zsRE in ROME's code; Zhang et al. 2024 (EasyEdit)";
const EASY_EDIT: &str = "Zhang et al. 2024 (EasyEdit)";
const MIRAGE: &str = "Yang et al. 2025";
const OURS: &str = "here";

/// Every measure of a single request.
pub static MEASURES: [Measure; 24] = [
    share("ES", "efficacy_success", ROME, "the new target has the smaller NLL after the prompt", |j| {
        Some(j.outcome(REWRITE)?.success)
    }),
    share("EM", "efficacy_magnitude", ROME, "P(new) - P(true) after the prompt", |j| {
        Some(j.outcome(REWRITE)?.magnitude)
    }),
    share(
        "PS",
        "paraphrase_success",
        ROME,
        "share of paraphrases after which the new target has the smaller NLL",
        |j| Some(j.outcome(PARAPHRASE)?.success),
    ),
    share("PM", "paraphrase_magnitude", ROME, "mean of P(new) - P(true) after paraphrases", |j| {
        Some(j.outcome(PARAPHRASE)?.magnitude)
    }),
    share(
        "NS",
        "neighbourhood_success",
        ROME,
        "share of neighbours after which the true target has the smaller NLL",
        |j| Some(j.outcome(NEIGHBOURHOOD)?.success),
    ),
    share("NM", "neighbourhood_magnitude", ROME, "mean of P(true) - P(new) after neighbours", |j| {
        Some(j.outcome(NEIGHBOURHOOD)?.magnitude)
    }),
    share("rewrite exact", "rewrite_exact", MEMIT, EXACT, |j| j.exact(REWRITE)),
    share("paraphrase exact", "paraphrase_exact", MEMIT, EXACT, |j| j.exact(PARAPHRASE)),
    share("neighbourhood exact", "neighbourhood_exact", MEMIT, EXACT_TRUE, |j| j.exact(NEIGHBOURHOOD)),
    share("rewrite acc", "rewrite_accuracy", ZSRE, FORCED, |j| j.forced(REWRITE)),
    share("rephrase acc", "paraphrase_accuracy", ZSRE, FORCED, |j| j.forced(PARAPHRASE)),
    share("specificity acc", "specificity_accuracy", ZSRE, FORCED_STAYS, |j| j.forced(STAYS)),
    share("portability", "portability_accuracy", EASY_EDIT, FORCED, |j| j.forced(PORTABILITY)),
    share("rewrite acc, free", "rewrite_free_accuracy", MIRAGE, FREE, |j| j.free(REWRITE)),
    share("rephrase acc, free", "paraphrase_free_accuracy", MIRAGE, FREE, |j| j.free(PARAPHRASE)),
    share("specificity acc, free", "specificity_free_accuracy", MIRAGE, FREE_STAYS, |j| j.free(STAYS)),
    share("portability, free", "portability_free_accuracy", MIRAGE, FREE, |j| j.free(PORTABILITY)),
    share("portability exact", "portability_exact", MIRAGE, EXACT, |j| j.exact(PORTABILITY)),
    share(
        "locality",
        "locality",
        EASY_EDIT,
        "share of an answer's places, of neighbours and locality questions, with the unedited model's likeliest token",
        |j| j.kept(|before, after| token_agreement(&before.forced, &after.forced)),
    ),
    share(
        "unchanged answers",
        "unchanged_answers",
        OURS,
        "share of neighbours and locality questions with the unedited model's greedy answer",
        |j| j.kept(|before, after| Some(share_of(before.free == after.free))),
    ),
    share(
        "GE",
        "fluency",
        ROME,
        "H2/3 + 2 H3/3, entropies in bits of the bigrams and trigrams of generated words",
        |j| {
            let texts: Vec<f64> =
                j.after.texts.iter().filter_map(|text| ngram_entropy(&words(text))).collect();
            mean(&texts)
        },
    ),
    share(
        "RS",
        "consistency",
        ROME,
        "cosine of the tf-idf vectors of generated texts and of texts about things of which the new target is true",
        |j| {
            let (tf_idf, reference) = j.reference?;
            tf_idf.cosine(&j.after.texts.join(" "), reference)
        },
    ),
    Measure {
        key: "drift_nll",
        label: "drift NLL",
        unit: Unit::Nats,
        source: OURS,
        definition: "NLL of neutral text after minus before, per token",
        of: |j| Some(j.drift?.nll),
    },
    Measure {
        key: "drift_kl",
        label: "drift KL",
        unit: Unit::Nats,
        source: OURS,
        definition: "KL divergence from the next token's distribution before to that after, per token of neutral text",
        of: |j| Some(j.drift?.kl),
    },
];

const REWRITE: &[ProbeKind] = &[ProbeKind::Rewrite];
const PARAPHRASE: &[ProbeKind] = &[ProbeKind::Paraphrase];
const NEIGHBOURHOOD: &[ProbeKind] = &[ProbeKind::Neighbourhood];
const PORTABILITY: &[ProbeKind] = &[ProbeKind::Portability];
/// What should stay as it is.
const STAYS: &[ProbeKind] = &[ProbeKind::Neighbourhood, ProbeKind::Locality];

const EXACT: &str = "every token of the answer is the likeliest: teacher-forced and greedy are one number";
const EXACT_TRUE: &str = "every token of the true target is the likeliest";
const FORCED: &str = "share of the answer's tokens that are the likeliest behind the answer's own tokens";
const FORCED_STAYS: &str = "acc of the right answers to neighbours and locality questions";
const FREE_STAYS: &str = "acc, free of the right answers to neighbours and locality questions";
const FREE: &str = "share of the answer's tokens that greedy generation has at their places";

/// Harmonic means of three measures.
pub static SCORES: [Score; 2] = [
    Score {
        key: "score",
        label: "S",
        of: ["efficacy_success", "paraphrase_success", "neighbourhood_success"],
        source: ROME,
        definition: "harmonic mean of ES, PS and NS",
    },
    Score {
        key: "accuracy_score",
        label: "S of accuracies",
        of: ["rewrite_accuracy", "paraphrase_accuracy", "specificity_accuracy"],
        source: "zsRE in ROME's code",
        definition: "harmonic mean of rewrite, rephrase and specificity acc",
    },
];

/// A harmonic mean of three measures, taken of their means over requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Score {
    /// Name in files.
    pub key: &'static str,
    /// Name in the paper.
    pub label: &'static str,
    /// Keys of the measures.
    pub of: [&'static str; 3],
    /// Where the definition comes from.
    pub source: &'static str,
    /// The definition on a line.
    pub definition: &'static str,
}

const fn share(
    label: &'static str,
    key: &'static str,
    source: &'static str,
    definition: &'static str,
    of: fn(&Judged) -> Option<f64>,
) -> Measure {
    Measure { key, label, unit: Unit::Hundredth, source, definition, of }
}

impl Measure {
    /// Value for a request; `None` where the file has no prompts for it.
    pub fn value(&self, judged: &Judged) -> Option<f64> {
        (self.of)(judged)
    }
}

impl<'a> Judged<'a> {
    /// Prompts of some kinds with the answers after the edit.
    fn of(self, kinds: &'static [ProbeKind]) -> impl Iterator<Item = (&'a Probe, &'a Answer)> {
        let asked = self.case.probes.iter().zip(&self.after.answers);
        asked.filter(move |(probe, _)| kinds.contains(&probe.kind))
    }

    fn outcome(self, kinds: &'static [ProbeKind]) -> Option<Outcome> {
        let both = |(_, answer): (_, &Answer)| answer.nll.as_slice().try_into().ok();
        let pairs: Vec<[f64; 2]> = self.of(kinds).filter_map(both).collect();
        if kinds == NEIGHBOURHOOD { true_holds(&pairs) } else { new_wins(&pairs) }
    }

    fn exact(self, kinds: &'static [ProbeKind]) -> Option<f64> {
        self.mean(kinds, |answer, wanted| Some(share_of(all_correct(&answer.forced, wanted)?)))
    }

    fn forced(self, kinds: &'static [ProbeKind]) -> Option<f64> {
        self.mean(kinds, |answer, wanted| token_agreement(&answer.forced, wanted))
    }

    fn free(self, kinds: &'static [ProbeKind]) -> Option<f64> {
        self.mean(kinds, |answer, wanted| free_accuracy(&answer.free, wanted))
    }

    /// Mean of a comparison of the answers to prompts of some kinds with the wanted ones.
    fn mean(self, kinds: &'static [ProbeKind], compare: fn(&Answer, &[u32]) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> =
            self.of(kinds).filter_map(|(probe, answer)| compare(answer, probe.wanted())).collect();
        mean(&values)
    }

    /// Mean of a comparison of the answers before and after to everything that should stay as it is.
    fn kept(self, compare: fn(&Answer, &Answer) -> Option<f64>) -> Option<f64> {
        let before = self.case.probes.iter().zip(&self.before.answers);
        let before = before.filter(|(probe, _)| STAYS.contains(&probe.kind)).map(|(_, answer)| answer);
        let pairs = before.zip(self.of(STAYS).map(|(_, answer)| answer));
        mean(&pairs.filter_map(|(before, after)| compare(before, after)).collect::<Vec<_>>())
    }
}

fn share_of(hit: bool) -> f64 {
    f64::from(u8::from(hit))
}
