//! Comparison of methods that find circuits of edges (X1), on clean and corrupted prompts made from the tasks.

use anyhow::Result;
use locus_circuits::edges::{
    Attribution, CurveAreas, Edge, EdgeScores, Graph, LogitDiff, MIB_FRACTIONS, Pair, QuadratureRule, RankBy,
    StandardAblation, activation_magnitude, attribute_edges, faithfulness_curve, patch_edges,
};
use locus_data::groups::twins;
use locus_data::seed::stream;
use locus_data::{EditRequest, Labelled};
use locus_gpt2::{Gpt2, Scalar, Tokenizer};

use crate::edits::PreparedRequest;
use crate::records::{CurvePoint, Discovery, HIERARCHY, Level};

/// Number of random rankings that the control is averaged over.
const RANDOM_DRAWS: u64 = 10;

/// Tasks that pairs can be made from: the hierarchy, and the agreement tasks in which the demonstrative, which decides,
/// comes before the noun.
pub const PAIR_TASKS: [&str; 5] = [HIERARCHY, "blimp_dna1", "blimp_dnai1", "blimp_dnawa1", "blimp_dnawai1"];

/// Makes at most `most` pairs from the rows of an agreement task, in the order of the acceptable sentences. Their
/// unacceptable twins are found by content ([`twins`]), wherever they are.
///
/// The clean prompt is the sentence up to the word in which the twins differ; in the corrupted prompt the last
/// demonstrative has the other number. The answers are the first tokens of the two words. Twins are skipped when there
/// is no demonstrative, the prompts differ in length or the answers are equal.
///
/// # Errors
/// When a prompt or an answer cannot be tokenised.
pub fn agreement_pairs(tokenizer: &Tokenizer, rows: &[Labelled], most: usize) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (good, bad) in twins(rows) {
        if pairs.len() == most {
            break;
        }
        let words = |row: usize| rows[row].text.split(' ').collect::<Vec<&str>>();
        let (good, bad) = (words(good), words(bad));
        let Some(at) = good.iter().zip(&bad).position(|(a, b)| a != b) else { continue };
        let Some(determiner) = good[..at].iter().rposition(|word| other_number(word).is_some()) else {
            continue;
        };
        let mut swapped = good[..at].to_vec();
        swapped[determiner] = other_number(swapped[determiner]).expect("just found");
        let first_token = |word: &str| -> Result<u32> {
            Ok(tokenizer.encode_some("answer", &format!(" {}", word.trim_end_matches('.')))?[0])
        };
        let pair = Pair {
            clean: tokenizer.encode_some("clean", &good[..at].join(" "))?,
            corrupted: tokenizer.encode_some("corrupted", &swapped.join(" "))?,
            correct: vec![first_token(good[at])?],
            incorrect: vec![first_token(bad[at])?],
        };
        if pair.clean.len() == pair.corrupted.len() && pair.correct != pair.incorrect {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// The singular of a plural demonstrative, and the reverse; `None` for other words.
fn other_number(determiner: &str) -> Option<&'static str> {
    Some(match determiner {
        "this" => "these",
        "these" => "this",
        "that" => "those",
        "those" => "that",
        _ => return None,
    })
}

/// Makes at most `most` pairs from requests: the corrupted prompt is that of another request of the same level, with as
/// many tokens and an answer that begins with another token. That answer is the incorrect one.
///
/// # Errors
/// When a prompt or a target gives no token.
pub fn hierarchy_pairs(tokenizer: &Tokenizer, requests: &[EditRequest], most: usize) -> Result<Vec<Pair>> {
    let prepared: Vec<PreparedRequest> =
        requests.iter().map(|request| PreparedRequest::new(tokenizer, request)).collect::<Result<_>>()?;
    let mut pairs = Vec::new();
    for (i, request) in prepared.iter().enumerate() {
        let others = prepared[i + 1..].iter().chain(&prepared[..i]);
        let partner = others.into_iter().find(|other| is_partner(request, other));
        if let (Some(partner), true) = (partner, pairs.len() < most) {
            pairs.push(Pair {
                clean: request.prompt().to_vec(),
                corrupted: partner.prompt().to_vec(),
                correct: vec![request.target_true()[0]],
                incorrect: vec![partner.target_true()[0]],
            });
        }
    }
    Ok(pairs)
}

fn is_partner(request: &PreparedRequest, other: &PreparedRequest) -> bool {
    let level = |request: &PreparedRequest| request.level == Level::Hyponym;
    level(request) == level(other)
        && request.prompt().len() == other.prompt().len()
        && request.target_true()[0] != other.target_true()[0]
}

/// Scores edges on the first half of the pairs with every method, and measures the circuits of every size on the
/// second.
///
/// # Errors
/// When a pair does not fit the model or there are fewer than two. There are no records for a task on which the full
/// model and the model with all edges ablated do not differ.
pub fn discover<F: Scalar>(model: &Gpt2<F>, task: &str, pairs: &[Pair], seed: u64) -> Result<Vec<Discovery>> {
    const METRIC: &LogitDiff = &LogitDiff;
    const ABLATION: &StandardAblation = &StandardAblation::Corrupted;
    let graph = Graph::new(model.config());
    let (train, held_out) = pairs.split_at(pairs.len() / 2);
    let attribute = |method| attribute_edges(model, train, METRIC, method, ABLATION);
    let edges: Vec<Edge> = graph.edges().collect();
    let scored: Vec<(&str, EdgeScores)> = vec![
        ("exact", patch_edges(model, train, METRIC, ABLATION, &edges)?),
        ("eap-ig-inputs", attribute(Attribution::IgInputs(QuadratureRule::Midpoint, 5))?),
        ("eap-ig-activations", attribute(Attribution::IgActivations(QuadratureRule::Midpoint, 5))?),
        ("clean-corrupted", attribute(Attribution::CleanCorrupted)?),
        ("eap", attribute(Attribution::Eap)?),
        ("activation-magnitude", activation_magnitude(model, train, ABLATION)?),
    ];
    let curve = |scores: &EdgeScores| {
        faithfulness_curve(model, held_out, METRIC, ABLATION, scores, RankBy::Absolute, &MIB_FRACTIONS)
    };
    let record = |method: &str, curve: Vec<(f64, f64)>| {
        let CurveAreas { cpr, cmd, cmd_log } = CurveAreas::of(&curve);
        let points =
            curve.into_iter().map(|(share, faithfulness)| CurvePoint { share, faithfulness }).collect();
        Discovery {
            task: task.to_owned(),
            method: method.to_owned(),
            pairs: train.len(),
            held_out_pairs: held_out.len(),
            edges: edges.len(),
            curve: points,
            cpr,
            cmd,
            cmd_log,
        }
    };
    let mut records = Vec::new();
    for (method, scores) in &scored {
        let Some(curve) = curve(scores)? else { return Ok(Vec::new()) };
        records.push(record(method, curve));
    }
    let mut mean = vec![0.0; MIB_FRACTIONS.len()];
    for draw in 0..RANDOM_DRAWS {
        let purpose = format!("random edges/{task}");
        let random = EdgeScores::random(graph, &mut stream(seed, &purpose, draw));
        for (mean, (_, faithfulness)) in mean.iter_mut().zip(curve(&random)?.unwrap_or_default()) {
            *mean += faithfulness / RANDOM_DRAWS as f64;
        }
    }
    records.push(record("random", MIB_FRACTIONS.into_iter().zip(mean).collect()));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_pairs_differ_in_the_demonstrative() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
        let tokenizer = Tokenizer::read(&folder).unwrap();
        let row = |text: &str, label| Labelled { text: text.into(), label };
        let good = row("Julia named that fungus.", 1);
        let bad = row("Julia named that fungi.", 0);
        // No demonstrative.
        let others = [row("a cat sees dogs.", 1), row("a cat sees dog.", 0)];
        let [plain, twin] = others;
        // Twins side by side, all acceptable sentences first as in the authors' files, and in no order.
        for rows in [[&good, &bad, &plain, &twin], [&plain, &good, &twin, &bad], [&bad, &plain, &twin, &good]]
        {
            let rows = rows.map(Clone::clone);
            let pairs = agreement_pairs(&tokenizer, &rows, 9).unwrap();
            assert_eq!(pairs.len(), 1);
            assert_eq!(tokenizer.decode(&pairs[0].clean).unwrap(), "Julia named that");
            assert_eq!(tokenizer.decode(&pairs[0].corrupted).unwrap(), "Julia named those");
            assert_ne!(pairs[0].correct, pairs[0].incorrect);
        }
        assert_eq!(other_number("that"), Some("those"));
        assert_eq!(other_number("the"), None);
    }
}
