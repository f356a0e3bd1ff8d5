//! Tests of the claims: fabricated records in, verdicts out.

use super::*;
use crate::{
    records::{Extraction, Overlap, SCHEDULED_TOP_K, Scope},
    tables::fabricated::{options, records},
};

fn verdicts(records: &Records) -> Vec<(String, Verdict)> {
    let claims = decide(records, &options());
    // A number that is not finite would become null and fail to come back.
    let json = serde_json::to_string(&claims).unwrap();
    serde_json::from_str::<Vec<Claim>>(&json).expect("every number is finite");
    claims.into_iter().map(|claim| (claim.id, claim.verdict)).collect()
}

fn claim(records: &Records, id: &str) -> Claim {
    decide(records, &options()).into_iter().find(|claim| claim.id == id).unwrap()
}

#[test]
fn what_was_published_is_supported() {
    for claim in decide(&records(1.0, 0.0), &options()) {
        assert_eq!(claim.verdict, Verdict::Supported, "{}: {} {}", claim.id, claim.because, claim.reading);
        assert!(claim.p_value < 0.05 && claim.n > 0 && !claim.rows.is_empty());
    }
}

#[test]
fn the_reverse_is_not_supported() {
    for claim in decide(&records(-1.0, 0.1), &options()) {
        // Reversed, a circuit of 5 % is ideal; so are those in between, which the claim has right.
        let expected = if claim.id == "C3" { Verdict::Mixed } else { Verdict::NotSupported };
        assert_eq!(claim.verdict, expected, "{}: {} {}", claim.id, claim.because, claim.reading);
    }
}

#[test]
fn noise_supports_nothing() {
    for claim in decide(&records(0.0, 1.0), &options()) {
        assert_ne!(claim.verdict, Verdict::Supported, "{}: {}", claim.id, claim.reading);
    }
}

/// Five independent requests decide nothing, however clearly they speak; six do.
#[test]
fn few_requests_decide_nothing() {
    let all = records(1.0, 0.0);
    let of_first = |n: usize| {
        let mut components: Vec<usize> = all.requests.iter().map(|request| request.component).collect();
        components.sort_unstable();
        components.dedup();
        let kept = &components[..n];
        let requests = all.requests.iter().filter(|request| kept.contains(&request.component)).cloned();
        let requests: Vec<_> = requests.collect();
        let is_kept = |case_id: u64| requests.iter().any(|request| request.case_id == case_id);
        let edits = all.edits.iter().filter(|edit| is_kept(edit.case_id)).cloned().collect();
        Records { requests, edits, ..all.clone() }
    };
    for id in ["C1", "C2", "C6", "C7"] {
        let (five, six) = (claim(&of_first(5), id), claim(&of_first(6), id));
        assert_eq!(five.verdict, Verdict::Undecided, "{id}: {}", five.because);
        assert!(five.because.contains("5 independent requests decide nothing"), "{id}: {}", five.because);
        assert_eq!(six.verdict, Verdict::Supported, "{id}: {}", six.because);
        // Nor do they tell that the model does not know the facts.
        let unknown = |n: usize| {
            let mut records = of_first(n);
            records.edits.iter_mut().for_each(|edit| edit.discrimination = Some(0.4));
            claim(&records, id).verdict
        };
        assert_ne!(unknown(5), Verdict::NotTestable, "{id}");
        assert_eq!(unknown(6), Verdict::NotTestable, "{id}");
    }
}

#[test]
fn no_records_measure_nothing() {
    for claim in decide(&Records::default(), &options()) {
        assert_eq!((claim.n, claim.verdict), (0, Verdict::NotMeasured));
        assert!(claim.reading.starts_with("Not measured"));
        assert!(claim.because.contains("needs T"), "{}", claim.because);
    }
}

#[test]
fn a_model_at_chance_tests_nothing() {
    let mut at_chance = records(1.0, 0.1);
    at_chance.extractions.iter_mut().for_each(|e| e.accuracy_full = 0.55);
    for claim in decide(&at_chance, &options()) {
        assert_eq!(claim.verdict, Verdict::NotTestable, "{}", claim.id);
        assert!(claim.because.contains("weights, on hierarchy, blimp_dna1"), "{}", claim.because);
    }
    // What a model of random weights does as well is no competence: a head reads it from the words.
    let mut words = records(1.0, 0.1);
    words.extractions.iter_mut().for_each(|e| e.accuracy_random_weights = Some(0.95));
    assert!(verdicts(&words).iter().all(|(_, verdict)| *verdict == Verdict::NotTestable));
    // One competent task is not enough for claims about others or about several.
    let able = |e: &&mut Extraction| e.task == "persona_e";
    words.extractions.iter_mut().filter(able).for_each(|e| e.accuracy_random_weights = Some(0.6));
    for id in ["C3", "C4"] {
        let claim = claim(&words, id);
        assert_eq!(claim.verdict, Verdict::NotTestable, "{id}: {}", claim.because);
        assert!(claim.because.contains("weights, on hierarchy"), "{id}: {}", claim.because);
    }
    // A model that does not know the facts can still do tasks.
    let mut ignorant = records(1.0, 0.1);
    ignorant.edits.iter_mut().filter(|e| e.scope == Scope::Full).for_each(|e| {
        e.discrimination = Some(if e.case_id % 4 < 2 { 0.3 } else { 0.7 });
    });
    let closed: Vec<_> = verdicts(&ignorant)
        .into_iter()
        .filter(|(_, v)| *v == Verdict::NotTestable)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(closed, ["C1", "C2", "C6", "C7"]);
}

#[test]
fn tasks_at_chance_and_broken_circuits_are_left_out() {
    let mut some = records(1.0, 0.1);
    let broken = |e: &&mut Extraction| e.task == "persona_e";
    some.extractions.iter_mut().filter(broken).for_each(|e| e.accuracy_full = 0.5);
    // Numbers of a task that is left out change nothing.
    for edit in some.edits.iter_mut().filter(|e| e.task == "persona_e") {
        edit.post_new += 100.0;
    }
    let (c2, all) = (claim(&some, "C2"), claim(&records(1.0, 0.1), "C2"));
    assert_eq!(c2.verdict, Verdict::Supported);
    assert!((c2.effect - all.effect).abs() < 0.2);
    let mut unreached = records(1.0, 0.1);
    unreached.extractions.iter_mut().for_each(|e| e.reached = false);
    let c1 = claim(&unreached, "C1");
    assert_eq!((c1.verdict, c1.rows.len()), (Verdict::NotMeasured, 0));
    assert!(c1.because.contains("fail at their task or their size"), "{}", c1.because);
}

#[test]
fn a_claim_that_reverses_between_sizes_is_mixed() {
    let (mut both, reversed) = (records(1.0, 0.1), records(-1.0, 0.1));
    let large = |density: f64| density == 0.5;
    both.edits.retain(|e| !large(e.target_density));
    both.edits.extend(reversed.edits.into_iter().filter(|e| large(e.target_density)));
    let c2 = claim(&both, "C2");
    assert_eq!(c2.verdict, Verdict::Mixed, "{}", c2.reading);
    assert!(c2.because.starts_with("holds for 5 %; fails for 50 %"), "{}", c2.because);
}

#[test]
fn what_masks_without_a_task_do_as_well_is_not_supported() {
    // Matched masks know as much as circuits, and are as much LayerNorm as the largest weights.
    let mut records = records(1.0, 0.1);
    for edit in records.edits.iter_mut().filter(|e| e.scope == Scope::Matched) {
        edit.pre_true -= 0.5;
        edit.discrimination = edit.discrimination.map(|share| share + 0.1);
    }
    for mask in records.extractions.iter_mut().filter(|e| e.scope == Scope::Magnitude) {
        let lead = &mut mask.composition[0];
        lead.kept = (1.5 * lead.kept as f64) as usize;
    }
    let (c1, c5) = (claim(&records, "C1"), claim(&records, "C5"));
    assert_eq!(c1.verdict, Verdict::NotSupported, "{}", c1.reading);
    assert!(c1.because.contains("against matched"), "{}", c1.because);
    assert_ne!(c5.verdict, Verdict::Supported, "{}", c5.reading);
    assert!(c5.because.contains("beyond magnitude"), "{}", c5.because);
}

#[test]
fn measures_that_disagree_do_not_support_c7() {
    let mut records = records(1.0, 0.1);
    // Hypernyms start higher by as much as they fall less: they change less, and end where hyponyms do.
    let hypernyms = |e: &&mut crate::records::EditOutcome| e.case_id % 2 == 1;
    records.edits.iter_mut().filter(hypernyms).for_each(|e| e.post_new -= 0.6);
    records.edits.iter_mut().filter(hypernyms).for_each(|e| e.pre_new -= 0.6);
    let c7 = claim(&records, "C7");
    assert_eq!(c7.verdict, Verdict::Mixed, "{}", c7.reading);
}

#[test]
fn numbers_that_are_not_finite_count_as_absent() {
    let mut broken = records(1.0, 0.2);
    broken.edits.iter_mut().for_each(|e| e.post_new = f64::NAN);
    let c2 = claim(&broken, "C2");
    assert_eq!((c2.n, c2.verdict), (0, Verdict::NotMeasured));
    verdicts(&broken);
}

#[test]
fn sizes_that_were_not_reached_do_not_count() {
    let mut records = records(1.0, 0.0);
    records.extractions.iter_mut().filter(|e| e.target_density == 0.05).for_each(|e| e.reached = false);
    assert_eq!(claim(&records, "C3").verdict, Verdict::NotMeasured);
}

#[test]
fn overlap_at_chance_is_not_moderate() {
    let mut records = records(1.0, 0.1);
    records.overlaps.iter_mut().for_each(|o| o.intersection = o.expected_intersection_matched as usize);
    let c4 = claim(&records, "C4");
    assert_eq!(c4.verdict, Verdict::NotSupported, "{}", c4.reading);
}

#[test]
fn overlap_within_families_alone_is_mixed() {
    let mut records = records(1.0, 0.1);
    let family = |task: &str| task.split('_').next().unwrap().to_owned();
    for o in records.overlaps.iter_mut().filter(|o| family(&o.task_a) != family(&o.task_b)) {
        o.intersection = o.expected_intersection_matched as usize;
    }
    let c4 = claim(&records, "C4");
    assert_eq!(c4.verdict, Verdict::Mixed, "{}", c4.reading);
    assert!(c4.because.contains("holds for within persona"), "{}", c4.because);
}

#[test]
fn overlap_is_judged_by_its_ceiling() {
    let mut records = records(1.0, 0.1);
    // Another seed of the same task shares no more than other tasks do: then 0.2 of the way is not moderate but all.
    let again = |o: &Overlap| Overlap { task_b: o.task_a.clone(), draw_b: 1, ..o.clone() };
    let more: Vec<Overlap> = records.overlaps.iter().map(again).collect();
    records.overlaps.extend(more);
    let c4 = claim(&records, "C4");
    assert_eq!(c4.verdict, Verdict::NotSupported, "{}", c4.reading);
    assert!(c4.rows.iter().all(|row| (row.effect - 1.0).abs() < 0.5));
}

#[test]
fn other_recipes_have_verdicts_of_their_own() {
    let (mut both, reversed) = (records(1.0, 0.1), records(-1.0, 0.1));
    let ours = |o: Overlap| Overlap { preset: SCHEDULED_TOP_K.into(), ..o };
    both.overlaps.extend(reversed.overlaps.into_iter().map(ours));
    let c4 = claim(&both, "C4");
    assert_eq!((c4.recipe.as_str(), c4.verdict), ("published", Verdict::Supported));
    assert_eq!((c4.others.len(), c4.others[0].verdict), (1, Verdict::NotSupported));
    assert!(c4.reading.contains("Recipe scheduled-top-k: not supported"), "{}", c4.reading);
}

#[test]
fn the_same_records_give_the_same_claims() {
    let records = records(1.0, 0.5);
    assert_eq!(decide(&records, &options()), decide(&records, &options()));
}

/// An independent implementation (`fixtures/golden/claims.py`, NumPy and SciPy) decides made-up records in the same way.
#[test]
fn an_independent_implementation_agrees() {
    #[derive(serde::Deserialize)]
    struct Golden {
        records: Records,
        claims: std::collections::BTreeMap<String, GoldenClaim>,
    }
    #[derive(serde::Deserialize)]
    struct GoldenClaim {
        verdict: Verdict,
        rows: Vec<GoldenRow>,
    }
    #[derive(serde::Deserialize)]
    struct GoldenRow {
        part: String,
        measure: String,
        against: String,
        size: String,
        edit: String,
        decides: bool,
        effect: f64,
        low: f64,
        high: f64,
        p_value: f64,
        verdict: Verdict,
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/claims.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.claims.len(), 5);
    for claim in decide(&golden.records, &options()) {
        let Some(expected) = golden.claims.get(&claim.id) else {
            assert_eq!(claim.verdict, Verdict::NotMeasured, "{}", claim.id);
            continue;
        };
        assert_eq!(
            (claim.verdict, claim.rows.len()),
            (expected.verdict, expected.rows.len()),
            "{}",
            claim.id
        );
        for row in &expected.rows {
            let same = |r: &&ClaimRow| {
                (&r.part, &r.measure, &r.against, &r.size, &r.edit)
                    == (&row.part, &row.measure, &row.against, &row.size, &row.edit)
            };
            let found = claim
                .rows
                .iter()
                .find(same)
                .unwrap_or_else(|| panic!("{}: {} {}", claim.id, row.measure, row.against));
            assert!((found.effect - row.effect).abs() < 1e-9, "{found:?}");
            for (found, expected) in
                [(found.low, row.low), (found.high, row.high), (found.p_value, row.p_value)]
            {
                // Quantiles of the t-distribution are iterated to about ten digits.
                assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found} for {expected}");
            }
            assert_eq!((found.decides, found.verdict), (row.decides, row.verdict), "{found:?}");
        }
    }
}
