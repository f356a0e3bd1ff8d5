//! Tests of the claims: fabricated records in, verdicts out.

use super::*;
use crate::{
    records::{Overlap, SCHEDULED_TOP_K, Scope},
    tables::fabricated::{options, records},
};

fn verdicts(records: &Records) -> Vec<(String, Verdict)> {
    let claims = decide(records, &options());
    // A number that is not finite would become null and fail to come back.
    let json = serde_json::to_string(&claims).unwrap();
    serde_json::from_str::<Vec<Claim>>(&json).expect("every number is finite");
    claims.into_iter().map(|claim| (claim.id, claim.verdict)).collect()
}

fn all(verdict: Verdict) -> Vec<(String, Verdict)> {
    (1..=7).map(|i| (format!("C{i}"), verdict)).collect()
}

fn claim(records: &Records, id: &str) -> Claim {
    decide(records, &options()).into_iter().find(|claim| claim.id == id).unwrap()
}

#[test]
fn what_was_published_is_supported() {
    assert_eq!(verdicts(&records(1.0, 0.2)), all(Verdict::Supported));
}

#[test]
fn the_reverse_is_not_supported() {
    assert_eq!(verdicts(&records(-1.0, 0.2)), all(Verdict::NotSupported));
}

#[test]
fn noise_decides_nothing() {
    assert_eq!(verdicts(&records(0.0, 1.0)), all(Verdict::Undecided));
}

#[test]
fn no_records_decide_nothing() {
    assert_eq!(verdicts(&Records::default()), all(Verdict::Undecided));
    for claim in decide(&Records::default(), &options()) {
        assert_eq!((claim.n, claim.effect, claim.p_value), (0, 0.0, 1.0));
        assert!(claim.reading.starts_with("Not measured"));
        assert!(claim.reading.contains("(needs T"), "{}", claim.reading);
    }
}

#[test]
fn two_requests_of_two_tasks_decide_nothing_by_pairing() {
    let mut few = records(1.0, 0.0);
    few.edits.retain(|e| e.case_id < 2 && ["hierarchy", "blimp_dna1", "none"].contains(&e.task.as_str()));
    few.extractions.retain(|e| e.task == "hierarchy");
    few.overlaps.truncate(2);
    let undecided: Vec<_> =
        verdicts(&few).into_iter().filter(|(_, v)| *v == Verdict::Undecided).map(|(id, _)| id).collect();
    // C3 rests on the held-out rows of the hierarchy task, which are all there.
    assert_eq!(undecided, ["C1", "C2", "C4", "C5", "C6", "C7"]);
}

#[test]
fn numbers_that_are_not_finite_count_as_absent() {
    let mut broken = records(1.0, 0.2);
    broken.edits.iter_mut().for_each(|e| e.post_new = f64::NAN);
    let c2 = claim(&broken, "C2");
    assert_eq!((c2.n, c2.verdict), (0, Verdict::Undecided));
    verdicts(&broken);
}

#[test]
fn the_intact_model_has_to_beat_both_sides() {
    let mut records = records(1.0, 0.2);
    for edit in records.edits.iter_mut().filter(|e| e.scope == Scope::Complement) {
        edit.post_new -= 2.0;
    }
    assert_eq!(claim(&records, "C6").verdict, Verdict::NotSupported);
}

#[test]
fn a_circuit_that_is_ideal_at_5_percent_refutes_the_lower_bound() {
    let mut records = records(1.0, 0.0);
    for circuit in &mut records.extractions {
        // Eighty rows would leave it open whether the complement is at chance.
        circuit.held_out_rows = 400;
        (circuit.agreement, circuit.accuracy_complement) = (1.0, 0.5);
    }
    let c3 = claim(&records, "C3");
    assert_eq!(c3.verdict, Verdict::NotSupported, "{}", c3.reading);
}

#[test]
fn sizes_that_were_not_reached_do_not_count() {
    let mut records = records(1.0, 0.0);
    records.extractions.iter_mut().filter(|e| e.target_density == 0.05).for_each(|e| e.reached = false);
    assert_eq!(claim(&records, "C3").n, 0);
}

#[test]
fn overlap_below_chance_is_not_moderate() {
    let mut records = records(1.0, 0.2);
    records
        .overlaps
        .iter_mut()
        .for_each(|o| o.intersection = (0.5 * o.expected_intersection_stratified) as usize);
    let c4 = claim(&records, "C4");
    assert_eq!(c4.verdict, Verdict::NotSupported, "{}", c4.reading);
}

#[test]
fn the_published_preset_decides_and_the_other_preset_is_mentioned() {
    let (mut both, reversed) = (records(1.0, 0.2), records(-1.0, 0.2));
    both.overlaps
        .extend(reversed.overlaps.into_iter().map(|o| Overlap { preset: SCHEDULED_TOP_K.into(), ..o }));
    let c4 = claim(&both, "C4");
    assert_eq!(c4.verdict, Verdict::Supported);
    assert!(
        c4.reading.contains(
            "Preset published, a made-up model with made-up data. Preset scheduled-top-k: effect +0.8"
        ),
        "{}",
        c4.reading
    );
}

#[test]
fn the_same_records_give_the_same_claims() {
    let records = records(1.0, 0.5);
    assert_eq!(decide(&records, &options()), decide(&records, &options()));
}
