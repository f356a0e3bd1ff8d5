//! Comparison of methods that find circuits of edges (X1), on clean and corrupted prompts made from the tasks.

use anyhow::Result;
use locus_circuits::edges::{
    Attribution, CurveAreas, Edge, EdgeScores, FaithfulnessCurve, Graph, LogitDiff, MIB_FRACTIONS, Pair,
    QuadratureRule, RankBy, StandardAblation, activation_magnitude, attribute_edges, faithfulness_curves,
    patch_edges,
};
use locus_data::groups::twins;
use locus_data::seed::stream;
use locus_data::{EditRequest, Labelled};
use locus_gpt2::internal::shuffle;
use locus_gpt2::{Gpt2, Scalar, Tokenizer};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap};
use locus_metrics::rank::pearson;
use locus_metrics::{Interval, Stream};

use crate::records::{CurvePoint, Discovery, HIERARCHY, Level};
use crate::requests::PreparedRequest;

/// Number of random rankings of the control.
const RANDOM_DRAWS: u64 = 10;
/// Largest number of edges that are all patched one by one.
const ALL_PATCHED: usize = 4096;
/// Number of patched edges of a larger graph, drawn at random.
const SAMPLED: usize = 256;

/// Number of edges that are patched one by one in a graph of `edges`.
pub fn patched_edges(edges: usize) -> usize {
    if edges > ALL_PATCHED { SAMPLED } else { edges }
}

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
        let answers = first_true(request).zip(partner.and_then(first_true));
        if let (Some(partner), Some((correct, incorrect)), true) = (partner, answers, pairs.len() < most) {
            pairs.push(Pair {
                clean: request.prompt().to_vec(),
                corrupted: partner.prompt().to_vec(),
                correct: vec![correct],
                incorrect: vec![incorrect],
            });
        }
    }
    Ok(pairs)
}

fn is_partner(request: &PreparedRequest, other: &PreparedRequest) -> bool {
    let level = |request: &PreparedRequest| request.level == Level::Hyponym;
    level(request) == level(other)
        && request.prompt().len() == other.prompt().len()
        && first_true(request).zip(first_true(other)).is_some_and(|(own, other)| own != other)
}

/// First token of a request's true target.
fn first_true(request: &PreparedRequest) -> Option<u32> {
    request.target_true()?.first().copied()
}

/// Scores edges on the first half of the pairs with every method, and measures the circuits of every size on the
/// second, of the ranking by absolute score and of that by score. Intervals over pairs come from equal resamples for all
/// methods. Scores are compared with the effects of patched edges; a graph of which only a sample is patched has no
/// ranking by exact patching. Random rankings are drawn several times: their record has the mean curve and the means of the areas, and the
/// intervals of the areas are over the rankings.
///
/// # Errors
/// When a pair does not fit the model or there are fewer than two.
pub fn discover<F: Scalar>(model: &Gpt2<F>, task: &str, pairs: &[Pair], seed: u64) -> Result<Vec<Discovery>> {
    const METRIC: &LogitDiff = &LogitDiff;
    const ABLATION: &StandardAblation = &StandardAblation::Corrupted;
    let graph = Graph::new(model.config());
    let (train, held_out) = pairs.split_at(pairs.len() / 2);
    let attribute = |method| attribute_edges(model, train, METRIC, method, ABLATION);
    let edges: Vec<Edge> = graph.edges().collect();
    let patched = sample(&edges, patched_edges(edges.len()), seed, task);
    let exact = patch_edges(model, train, METRIC, ABLATION, &patched)?;
    let mut scored: Vec<(&str, EdgeScores)> = vec![
        ("eap-ig-inputs", attribute(Attribution::IgInputs(QuadratureRule::Midpoint, 5))?),
        ("eap-ig-activations", attribute(Attribution::IgActivations(QuadratureRule::Midpoint, 5))?),
        ("clean-corrupted", attribute(Attribution::CleanCorrupted)?),
        ("eap", attribute(Attribution::Eap)?),
        ("activation-magnitude", activation_magnitude(model, train, ABLATION)?),
    ];
    let over_edges = Stream::named(seed, &format!("patched edges intervals/{task}"));
    let correlations: Vec<Option<Interval>> =
        scored.iter().map(|(_, scores)| correlation(scores, &exact, &patched, over_edges)).collect();
    let ranks_exactly = patched.len() == edges.len();
    let correlations = ranks_exactly.then_some(None).into_iter().chain(correlations);
    let purpose = format!("random edges/{task}");
    let random: Vec<EdgeScores> =
        (0..RANDOM_DRAWS).map(|draw| EdgeScores::random(graph, &mut stream(seed, &purpose, draw))).collect();
    let random_correlation = mean_correlation(&random, &exact, &patched);
    if ranks_exactly {
        scored.insert(0, ("exact", exact));
    }
    let of_methods = scored.iter().flat_map(|(_, scores)| ORDERS.map(|by| (scores, by)));
    let rankings: Vec<(&EdgeScores, RankBy)> =
        of_methods.chain(random.iter().map(|scores| (scores, RankBy::Absolute))).collect();
    let curves = faithfulness_curves(model, held_out, METRIC, ABLATION, &rankings, &MIB_FRACTIONS)?;
    let (of_methods, of_draws) = curves.split_at(ORDERS.len() * scored.len());

    let resamples = Stream::named(seed, &format!("edge intervals/{task}"));
    let span = curves[0].span(resamples);
    let blank = |method: &str| Discovery {
        task: task.to_owned(),
        method: method.to_owned(),
        pairs: train.len(),
        held_out_pairs: held_out.len(),
        edges: edges.len(),
        span,
        curve: Vec::new(),
        curve_signed: Vec::new(),
        cpr: None,
        cmd: None,
        cmd_log: None,
        patched: patched.len(),
        correlation: None,
    };
    let methods = scored.iter().zip(of_methods.chunks_exact(ORDERS.len())).zip(correlations);
    let mut records: Vec<Discovery> = methods
        .map(|(((method, _), curves), correlation)| {
            of_rankings(&curves[0], &curves[1], resamples, Discovery { correlation, ..blank(method) })
        })
        .collect();
    let random = Discovery { correlation: random_correlation, ..blank("random") };
    records.push(of_random(of_draws, resamples, random));
    Ok(records)
}

/// Some of the edges, drawn without replacement, in the order of the graph.
fn sample(edges: &[Edge], n: usize, seed: u64, task: &str) -> Vec<Edge> {
    let mut order: Vec<usize> = (0..edges.len()).collect();
    if n < edges.len() {
        shuffle(&mut order, &mut stream(seed, &format!("patched edges/{task}"), 0));
        order.truncate(n);
        order.sort_unstable();
    }
    order.into_iter().map(|i| edges[i]).collect()
}

/// Correlation of scores with exact effects over some edges, which its interval resamples.
fn correlation(scores: &EdgeScores, exact: &EdgeScores, edges: &[Edge], stream: Stream) -> Option<Interval> {
    let of = |scores: &EdgeScores| edges.iter().map(|&edge| scores.get(edge)).collect::<Vec<f64>>();
    let (scores, exact) = (of(scores), of(exact));
    pearson(&scores, &exact)?;
    let at = |values: &[f64], edges: &[usize]| edges.iter().map(|&edge| values[edge]).collect::<Vec<f64>>();
    let resampled = |edges: &[usize]| pearson(&at(&scores, edges), &at(&exact, edges)).unwrap_or(f64::NAN);
    Some(bootstrap(edges.len(), RESAMPLES, stream, resampled))
}

/// Mean correlation of random scores with exact effects; the interval is over the draws.
fn mean_correlation(draws: &[EdgeScores], exact: &EdgeScores, edges: &[Edge]) -> Option<Interval> {
    let of = |scores: &EdgeScores| edges.iter().map(|&edge| scores.get(edge)).collect::<Vec<f64>>();
    let exact = of(exact);
    let each: Vec<f64> = draws.iter().map(|draw| pearson(&of(draw), &exact)).collect::<Option<_>>()?;
    Some(Interval::of_resamples(each.iter().sum::<f64>() / each.len() as f64, each))
}

/// Orders in which the edges of each method are ranked.
const ORDERS: [RankBy; 2] = [RankBy::Absolute, RankBy::Signed];

/// Fills in the curves and areas of a method: CPR of the ranking by score, CMD of the ranking by absolute score. Nothing
/// is filled in where faithfulness is undefined.
fn of_rankings(
    absolute: &FaithfulnessCurve,
    signed: &FaithfulnessCurve,
    resamples: Stream,
    record: Discovery,
) -> Discovery {
    let (Some(cpr), Some(cmd), Some(cmd_log)) = (
        signed.interval(resamples, |areas| areas.cpr),
        absolute.interval(resamples, |areas| areas.cmd),
        absolute.interval(resamples, |areas| areas.cmd_log),
    ) else {
        return record;
    };
    let points = |curve: &FaithfulnessCurve| {
        curve.points().unwrap_or_default().into_iter().map(point).collect::<Vec<_>>()
    };
    Discovery {
        curve: points(absolute),
        curve_signed: points(signed),
        cpr: Some(cpr),
        cmd: Some(cmd),
        cmd_log: Some(cmd_log),
        ..record
    }
}

/// Fills in the mean curve of random rankings, and the mean over rankings of each area; the intervals go from the 2.5 %
/// to the 97.5 % quantile of the rankings' areas. The area is taken before the mean, because CMD of the mean curve is
/// smaller than the mean CMD wherever some rankings lie above 1 and others below. Nothing is filled in where
/// faithfulness is undefined.
fn of_random(draws: &[FaithfulnessCurve], resamples: Stream, record: Discovery) -> Discovery {
    let defined = draws.first().is_some_and(|curve| !curve.span(resamples).contains(0.0));
    let curves: Option<Vec<_>> = draws.iter().map(FaithfulnessCurve::points).collect();
    let Some(curves) = curves.filter(|_| defined) else { return record };
    let n = curves.len() as f64;
    let areas: Vec<CurveAreas> = curves.iter().map(|curve| CurveAreas::of(curve)).collect();
    let over_draws = |area: fn(&CurveAreas) -> f64| {
        Some(Interval::of_resamples(areas.iter().map(area).sum::<f64>() / n, areas.iter().map(area)))
    };
    let mean_at =
        |size: usize| (curves[0][size].0, curves.iter().map(|curve| curve[size].1).sum::<f64>() / n);
    let curve: Vec<CurvePoint> = (0..curves[0].len()).map(mean_at).map(point).collect();
    Discovery {
        // Random scores are not negative, so both orders are the same.
        curve_signed: curve.clone(),
        curve,
        cpr: over_draws(|areas| areas.cpr),
        cmd: over_draws(|areas| areas.cmd),
        cmd_log: over_draws(|areas| areas.cmd_log),
        ..record
    }
}

fn point((share, faithfulness): (f64, f64)) -> CurvePoint {
    CurvePoint { share, faithfulness }
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

    const STREAM: Stream = Stream::new(7, 8);

    /// A curve of two sizes with the same faithfulness on every pair.
    fn curve(first: f64, second: f64) -> FaithfulnessCurve {
        let clean = vec![2.0, 3.0, 4.0];
        let times = |f: f64| clean.iter().map(|x| f * x).collect::<Vec<f64>>();
        FaithfulnessCurve {
            empty: vec![0.0; 3],
            circuits: vec![(0.5, times(first)), (1.0, times(second))],
            clean,
        }
    }

    fn blank() -> Discovery {
        Discovery {
            task: "planted".into(),
            method: "by hand".into(),
            pairs: 3,
            held_out_pairs: 3,
            edges: 4,
            span: Interval { value: 3.0, low: 2.0, high: 4.0 },
            curve: vec![],
            curve_signed: vec![],
            cpr: None,
            cmd: None,
            cmd_log: None,
            patched: 4,
            correlation: None,
        }
    }

    #[test]
    fn cpr_is_of_the_signed_ranking_and_cmd_of_the_absolute_one() {
        let found = of_rankings(&curve(0.2, 1.0), &curve(1.4, 1.0), STREAM, blank());
        let [cpr, cmd, cmd_log] = [found.cpr, found.cmd, found.cmd_log].map(Option::unwrap);
        for (actual, expected) in [(cpr, 0.5 * 1.2), (cmd, 0.5 * 0.4), (cmd_log, 0.4)] {
            for x in [actual.value, actual.low, actual.high] {
                assert!((x - expected).abs() < 1e-12, "{actual:?}");
            }
        }
        assert!((found.curve[0].faithfulness - 0.2).abs() < 1e-12);
        assert!((found.curve_signed[0].faithfulness - 1.4).abs() < 1e-12);
    }

    /// One ranking below 1 and one above: the mean curve is 1 throughout, yet neither ranking is the model.
    #[test]
    fn areas_of_random_rankings_are_averaged_and_not_their_curves() {
        let found = of_random(&[curve(0.6, 1.0), curve(1.4, 1.0)], STREAM, blank());
        assert!(found.curve.iter().all(|point| (point.faithfulness - 1.0).abs() < 1e-12));
        let cmd = found.cmd.unwrap();
        assert!((cmd.value - 0.5 * 0.2).abs() < 1e-12, "{cmd:?}");
        let cpr = found.cpr.unwrap();
        assert!((cpr.value - 0.5).abs() < 1e-12 && cpr.low < 0.42 && cpr.high > 0.58, "{cpr:?}");
    }

    /// On a planted circuit integrated gradients come closest to the model, the full circuit is the model, and the
    /// control has a record like every method.
    #[test]
    fn every_method_on_a_planted_circuit() {
        let planted = locus_circuits::planted::exclusive_or();
        let found = discover(&planted.model, "planted", &planted.pairs, 1).unwrap();
        let names: Vec<&str> = found.iter().map(|record| record.method.as_str()).collect();
        assert_eq!((names[0], names[6], names.len()), ("exact", "random", 7));
        for record in &found {
            for curve in [&record.curve, &record.curve_signed] {
                assert!((curve.last().unwrap().faithfulness - 1.0).abs() < 1e-6, "{record:?}");
            }
        }
        assert_eq!(found[5].curve, found[5].curve_signed, "magnitudes are not negative");
        // Integrated gradients are nearly exact there, and random scores know nothing.
        let of = |record: &Discovery| record.correlation.unwrap();
        assert!(found.iter().all(|record| record.patched == record.edges) && found[0].correlation.is_none());
        assert!(of(&found[1]).value > 0.9 && of(&found[6]).contains(0.0), "{found:?}");
        let cmd = |record: &Discovery| record.cmd.unwrap().value;
        assert!(cmd(&found[1]) < cmd(&found[6]), "{} {}", cmd(&found[1]), cmd(&found[6]));
    }

    #[test]
    fn samples_of_edges_are_drawn_once_each() {
        let planted = locus_circuits::planted::exclusive_or();
        let edges: Vec<Edge> = Graph::new(planted.model.config()).edges().collect();
        assert_eq!(sample(&edges, edges.len(), 1, "planted"), edges);
        let some = sample(&edges, 5, 1, "planted");
        assert_eq!(some.len(), 5);
        let places: Vec<usize> =
            some.iter().map(|edge| edges.iter().position(|other| other == edge).unwrap()).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
        assert_ne!(some, sample(&edges, 5, 2, "planted"));
        assert_eq!((patched_edges(479), patched_edges(32_491)), (479, 256));
    }

    #[test]
    fn a_model_that_the_edges_do_not_move_has_no_curves() {
        let mut planted = locus_circuits::planted::exclusive_or();
        planted.pairs.iter_mut().for_each(|pair| pair.corrupted = pair.clean.clone());
        let found = discover(&planted.model, "planted", &planted.pairs, 1).unwrap();
        assert_eq!(found.len(), 7);
        for record in found {
            assert!(record.span.contains(0.0) && record.curve.is_empty() && record.curve_signed.is_empty());
            assert_eq!((record.cpr, record.cmd, record.cmd_log), (None, None, None));
        }
    }
}
