//! Fabricated records for tests: of a run in which every published claim holds, is reversed, or has no effect.

use super::options::TableOptions;
use crate::records::{
    EditKind, EditOutcome, Extraction, Level, Overlap, PUBLISHED, Records, RequestInfo, Schedule, Scope,
    TensorCount,
};

pub(crate) const TASKS: [&str; 7] =
    ["blimp_dna1", "blimp_dna2", "hierarchy", "persona_e", "persona_hhh", "persona_ra", "persona_tech"];
pub(crate) const REQUESTS: u64 = 40;
const SWEEP: [f64; 5] = [0.5, 0.35, 0.25, 0.15, 0.05];
/// Scopes that are edited for every task.
pub(crate) const SCOPES: [Scope; 9] = [
    Scope::Circuit,
    Scope::Complement,
    Scope::CircuitInPlace,
    Scope::Matched,
    Scope::MatchedComplement,
    Scope::MatchedInPlace,
    Scope::Shuffled,
    Scope::ShuffledComplement,
    Scope::Magnitude,
];

pub(crate) fn options() -> TableOptions {
    TableOptions { seed: 17, resamples: 400, model: "a made-up model".into(), data: "made-up data".into() }
}

/// Records of the published preset, with effects of the given sign (1: as published, -1: reversed, 0: none) and noise
/// of the given size.
pub(crate) fn records(sign: f64, noise: f64) -> Records {
    let mut records = Records::default();
    for (i, task) in TASKS.iter().enumerate() {
        for density in SWEEP {
            let main = density == 0.5 || density == 0.05;
            if *task == "hierarchy" || main {
                for scope in [
                    Scope::Circuit,
                    Scope::Matched,
                    Scope::Shuffled,
                    Scope::Magnitude,
                    Scope::RandomWeights,
                    Scope::Random,
                ] {
                    records.extractions.push(extraction(task, density, scope, sign, noise));
                }
                let scopes = if main { &SCOPES[..] } else { &SCOPES[..2] };
                for &scope in scopes {
                    records
                        .edits
                        .extend((0..REQUESTS).map(|case| edit(task, density, scope, case, sign, noise)));
                }
            }
        }
        for other in &TASKS[..i] {
            records.overlaps.extend([0.05, 0.5].map(|density| overlap(other, task, density, sign, noise)));
        }
    }
    for case in 0..REQUESTS {
        records.edits.push(edit("none", 1.0, Scope::Full, case, sign, noise));
        for scope in [Scope::Random, Scope::RandomComplement] {
            records.edits.extend([0.05, 0.5].map(|density| edit("none", density, scope, case, sign, noise)));
        }
        let component = case as usize / 2;
        records.requests.push(RequestInfo { case_id: case, level: level(case), component, wording: None });
    }
    records
}

fn level(case_id: u64) -> Level {
    if case_id.is_multiple_of(2) { Level::Hyponym } else { Level::Hypernym }
}

pub(crate) fn edit(
    task: &str,
    density: f64,
    scope: Scope,
    case_id: u64,
    sign: f64,
    noise: f64,
) -> EditOutcome {
    let level = level(case_id);
    let wobble = |what: &str| noise * uniform(&format!("{task} {density} {scope:?} {case_id} {what}"));
    let intact = matches!(scope, Scope::Full | Scope::CircuitInPlace | Scope::MatchedInPlace);
    let mut change = match scope {
        _ if intact => -1.0 - 0.9 * sign,
        Scope::Circuit => -1.0 + 0.3 * sign,
        Scope::Complement => -1.0 - 0.3 * sign,
        _ => -1.0,
    };
    change += if level == Level::Hypernym { 0.2 * sign } else { 0.0 };
    let pre_true = if scope == Scope::Circuit { 2.0 - 0.5 * sign } else { 2.0 } + wobble("true");
    let pre_new = 5.0 + wobble("new");
    let discrimination = if intact {
        0.9
    } else if scope == Scope::Circuit {
        0.7 + 0.1 * sign
    } else {
        0.7
    };
    // With effects as published the intact model takes half of the edits, masked ones none; reversed, the others.
    let rise = if intact { 2.0 - 0.8 * sign } else { 2.0 - 1.5 * sign };
    EditOutcome {
        preset: if scope == Scope::Full { String::new() } else { PUBLISHED.into() },
        task: task.into(),
        target_density: density,
        scope,
        draw: 0,
        edit: EditKind::Steps10,
        case_id,
        level,
        pre_new,
        pre_true,
        discrimination: Some(discrimination + 0.1 * wobble("others")),
        post_new: pre_new + change + wobble("change"),
        post_true: pre_true + rise,
        steps: 10,
        steps_to_success: None,
        paraphrase: Some(0.5),
        neighbourhood: None,
        drift: None,
    }
}

pub(crate) fn extraction(task: &str, density: f64, scope: Scope, sign: f64, noise: f64) -> Extraction {
    let circuit = scope == Scope::Circuit;
    // As published, the smallest circuit is too small and an ideal size lies in between.
    let too_small = density < 0.1 && sign > 0.0;
    let agreement = match (circuit, sign == 0.0, too_small) {
        (false, ..) => 0.6,
        (true, true, _) => 0.9,
        (true, false, true) => 0.75,
        (true, false, false) => 1.0,
    };
    let kept = |share: f64, what: &str| {
        let share = share + 0.4 * noise * density * uniform(&format!("{task} {density} {scope:?} {what}"));
        (share.clamp(0.0, 1.0) * 1000.0) as usize
    };
    let tensor = |tensor: &str, share: f64| TensorCount {
        layer: 0,
        tensor: tensor.into(),
        kept: kept(share, tensor),
        size: 1000,
    };
    let lead = if circuit { 0.5 * sign } else { 0.0 };
    Extraction {
        preset: PUBLISHED.into(),
        task: task.into(),
        target_density: density,
        scope,
        draw: 0,
        schedule: Schedule::Sweep,
        density,
        reached: true,
        epochs: 30,
        steps: 300,
        held_out_rows: 80,
        accuracy_full: 0.9625,
        accuracy_random_weights: Some(0.6),
        accuracy: if circuit { 0.95 } else { 0.5 },
        accuracy_complement: if too_small { 0.9 } else { 0.4 },
        agreement,
        balanced_agreement: Some(agreement),
        agreement_complement: 0.5,
        neutral_nll: Some(4.0),
        neutral_kl: Some(1.0),
        composition: vec![
            tensor("ln_1.weight", density * (1.0 + lead)),
            tensor("attn.c_attn.weight", density),
            tensor("mlp.c_fc.weight", density),
        ],
        mask_sha256: String::new(),
        edited_sha256: None,
    }
}

fn overlap(a: &str, b: &str, density: f64, sign: f64, noise: f64) -> Overlap {
    let population = 100_000;
    let size = (density * population as f64) as usize;
    let chance = density * size as f64;
    // As published: a fifth of the way from chance to identity. Reversed: nearly the same circuit.
    let way = if sign > 0.0 {
        0.2
    } else if sign < 0.0 {
        0.9
    } else {
        0.0
    };
    let way = way + 0.2 * noise.min(1.0) * density * uniform(&format!("{a} {b} {density}"));
    Overlap {
        preset: PUBLISHED.into(),
        target_density: density,
        task_a: a.into(),
        task_b: b.into(),
        draw_b: 0,
        intersection: (chance + way * (size as f64 - chance)) as usize,
        size_a: size,
        size_b: size,
        population,
        expected_intersection_stratified: chance,
        expected_intersection_matched: chance,
    }
}

/// A number in [-1, 1) that depends on a name alone.
fn uniform(name: &str) -> f64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    // The last bytes hardly affect the high bits of FNV-1a, so mix once more.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}
