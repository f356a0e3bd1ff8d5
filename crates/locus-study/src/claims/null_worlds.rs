//! Simulated runs in which an effect is absent while everything that could be mistaken for it is present, and runs in
//! which it is planted: how often is a claim supported?
//!
//! Confounders, all at once in every null world:
//!
//! - size: an edit changes more where more parameters may move;
//! - damage: masked models are broken to a degree that depends on the mask, circuits less than random masks, because they
//!   were trained; broken models start at higher NLLs and move by other amounts, in proportion to their damage;
//! - |w|: what circuits are made of and share with each other follows from the size of the weights;
//! - families: the tasks of a family share most of their noise, so that they repeat one finding rather than make several.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::records::{
    EditKind, EditOutcome, Extraction, Level, Overlap, RequestInfo, SCHEDULED_TOP_K, Schedule, Scope,
    TensorCount,
};
use crate::tables::fabricated::{extraction, options};
use crate::tables::select::family;

const WORLDS: usize = 200;
/// False support in at most 5 % of worlds.
const MOST_FALSE: usize = WORLDS / 20;
/// Planted effects are found in at least 80 % of worlds.
const FEWEST_FOUND: usize = WORLDS * 4 / 5;

const TASKS: [&str; 7] =
    ["hierarchy", "blimp_dna1", "blimp_dna2", "blimp_dnai1", "persona_e", "persona_ra", "persona_hhh"];
const SIZES: [f64; 2] = [0.5, 0.05];
const PAIRS: u64 = 20;

/// Effects that a world has; 0 is absent. In nats, except where a share is meant.
#[derive(Clone, Copy, Default)]
struct Planted {
    /// C1: fall of NLL(true) in circuits, and half as much a rise of their discrimination.
    knowledge: f64,
    /// C2: resistance of circuits to edits.
    resistance: f64,
    /// C3: agreement of circuits between 5 % and 50 % beyond what their size brings.
    ideal_size: f64,
    /// C4: overlap beyond matched masks, across and within families.
    overlap: f64,
    /// C5: share of LayerNorm kept beyond masks without a task.
    layer_norm: f64,
    /// C6: advantage of the intact model.
    intact: f64,
    /// C7: resistance of hypernyms.
    level: f64,
}

/// Standard normal numbers (Box and Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Noise that the tasks of a family share, and a little of each task's own.
struct OfTasks {
    by_task: std::collections::BTreeMap<&'static str, f64>,
}

impl OfTasks {
    fn new(rng: &mut ChaCha8Rng, sd: f64) -> Self {
        let mut families = std::collections::BTreeMap::new();
        for task in TASKS {
            families.entry(family(task)).or_insert_with(|| sd * normal(rng));
        }
        OfTasks { by_task: TASKS.map(|task| (task, families[family(task)] + 0.3 * sd * normal(rng))).into() }
    }

    fn of(&self, task: &str) -> f64 {
        self.by_task.get(task).copied().unwrap_or(0.0)
    }
}

fn world(seed: u64, planted: Planted) -> Records {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut records = Records::default();
    edits(&mut records, planted, rng);
    masks(&mut records, planted, rng);
    overlaps(&mut records, planted, rng);
    records
}

/// Share of the parameters that may move, and whether the model is masked.
fn extent(scope: Scope, size: f64) -> (f64, bool) {
    match scope {
        Scope::Full => (1.0, false),
        Scope::CircuitInPlace | Scope::MatchedInPlace => (size, false),
        scope if scope.complement().is_some() => (size, true),
        _ => (1.0 - size, true),
    }
}

fn edits(records: &mut Records, planted: Planted, rng: &mut ChaCha8Rng) {
    const SCOPES: [Scope; 9] = [
        Scope::Circuit,
        Scope::Complement,
        Scope::CircuitInPlace,
        Scope::Matched,
        Scope::MatchedComplement,
        Scope::Shuffled,
        Scope::ShuffledComplement,
        Scope::Magnitude,
        Scope::MatchedInPlace,
    ];
    // Forty requests in twenty components.
    let components: Vec<f64> = (0..20).map(|_| 0.4 * normal(rng)).collect();
    let component = |case: u64| (case / 2 % 20) as usize;
    for case in 0..2 * PAIRS {
        let level = if case % 2 == 0 { Level::Hyponym } else { Level::Hypernym };
        let info = RequestInfo { case_id: case, level, component: component(case), wording: None };
        records.requests.push(info);
    }
    // Broken models move further, or less far: either way in proportion to the damage.
    let damage_slope = if rng.random::<bool>() { 0.5 } else { -0.5 };
    let hypernyms_start = 2.0;
    let resistance = OfTasks::new(rng, 0.05);
    let knowledge = OfTasks::new(rng, 0.02);
    let mut add = |task: &'static str, size: f64, scope: Scope, draw: usize, rng: &mut ChaCha8Rng| {
        let (share, masked) = extent(scope, size);
        let trained = matches!(scope, Scope::Circuit | Scope::Shuffled);
        let damage = match masked {
            false => 0.0,
            true => 3.0 * (1.0 - share) - if trained { 0.8 } else { 0.0 } + 0.05 * normal(rng),
        };
        let of_mask = 0.02 * normal(rng);
        for case in 0..2 * PAIRS {
            let hypernym = (case % 2) as f64;
            let own = components[component(case)];
            let circuit = f64::from(u8::from(scope == Scope::Circuit));
            let pre_new = 5.0 + damage + hypernyms_start * hypernym + own + 0.3 * normal(rng);
            let pre_true = 2.0 + damage + own + 0.3 * normal(rng) - planted.knowledge * circuit;
            // Only the knowledge that was planted tells true targets from others; the intact model has it all.
            let discrimination = match masked {
                false => 0.9,
                true => 0.6 + 0.5 * planted.knowledge * circuit + circuit * knowledge.of(task),
            };
            let mut change = -1.0 - share + 0.3 * own - damage_slope * damage;
            // What starts higher falls further, as far as the mean goes: hypernyms end where they would without.
            change -= 0.5 * hypernyms_start * hypernym;
            change += circuit * (planted.resistance + resistance.of(task)) + of_mask;
            if !masked {
                change -= planted.intact;
            }
            change += planted.level * hypernym * (1.0 + 0.5 * hypernyms_start / planted.level.max(1.0));
            let post_new = pre_new + change + 0.3 * normal(rng);
            records.edits.push(EditOutcome {
                preset: if scope == Scope::Full { String::new() } else { SCHEDULED_TOP_K.into() },
                task: task.into(),
                target_density: if scope == Scope::Full { 1.0 } else { size },
                scope,
                draw,
                edit: EditKind::Steps10,
                case_id: case,
                level: if case % 2 == 0 { Level::Hyponym } else { Level::Hypernym },
                pre_new,
                pre_true,
                discrimination: Some((discrimination + 0.1 * normal(rng)).clamp(0.0, 1.0)),
                post_new,
                post_true: pre_true + 1.0 + 0.2 * normal(rng),
                steps: 10,
                steps_to_success: None,
                paraphrase: None,
                neighbourhood: None,
                drift: None,
            });
        }
    };
    add("none", 1.0, Scope::Full, 0, rng);
    for size in SIZES {
        for draw in 0..3 {
            add("none", size, Scope::Random, draw, rng);
            add("none", size, Scope::RandomComplement, draw, rng);
        }
        for task in TASKS {
            for scope in SCOPES {
                add(task, size, scope, 0, rng);
            }
        }
    }
}

fn masks(records: &mut Records, planted: Planted, rng: &mut ChaCha8Rng) {
    const KINDS: [Scope; 5] =
        [Scope::Circuit, Scope::Magnitude, Scope::Shuffled, Scope::RandomWeights, Scope::Matched];
    let lead = OfTasks::new(rng, 0.01);
    for task in TASKS {
        let sizes: &[f64] = if task == "hierarchy" { &[0.5, 0.35, 0.25, 0.15, 0.05] } else { &SIZES };
        for (&size, scope) in sizes.iter().flat_map(|size| KINDS.map(|scope| (size, scope))) {
            let circuit = f64::from(u8::from(scope == Scope::Circuit));
            // Every recipe prefers LayerNorm, whatever it is trained on, because its weights are large; where an effect is
            // planted, masks without a task avoid it by as much as circuits prefer it.
            let lead_of_mask = match (planted.layer_norm > 0.0, scope == Scope::Circuit) {
                (false, _) => 0.3,
                (true, true) => planted.layer_norm,
                (true, false) => -planted.layer_norm,
            } + circuit * lead.of(task);
            let mut e = extraction(task, size, scope, 0.0, 0.0);
            e.preset = SCHEDULED_TOP_K.into();
            e.composition = (0..4)
                .flat_map(|layer| {
                    let module = |tensor: &str, lead: f64, rng: &mut ChaCha8Rng| TensorCount {
                        layer,
                        tensor: tensor.into(),
                        kept: ((0.4 * size + 0.3 + lead * size.sqrt() + 0.02 * normal(rng)).clamp(0.0, 1.0)
                            * 1000.0) as usize,
                        size: 1000,
                    };
                    [
                        module("ln_1.weight", lead_of_mask, rng),
                        module("ln_2.weight", lead_of_mask, rng),
                        module("attn.c_attn.weight", 0.0, rng),
                        module("attn.c_proj.weight", 0.0, rng),
                        module("mlp.c_fc.weight", 0.0, rng),
                        module("mlp.c_proj.weight", 0.0, rng),
                    ]
                })
                .collect();
            // Agreement follows from the size alone; only a planted effect adds to it in between.
            let between = f64::from(u8::from(size > 0.05 && size < 0.5));
            let by_size = 0.62 + 0.5 * size;
            let agreement = by_size + circuit * between * planted.ideal_size;
            e.held_out_rows = 400;
            e.agreement = sampled(agreement.min(0.995), 400, rng);
            e.balanced_agreement = Some(e.agreement);
            e.accuracy_complement = sampled(0.5, 400, rng);
            records.extractions.push(Extraction { schedule: Schedule::Sweep, ..e });
        }
    }
}

/// The share that `n` draws with a probability give.
fn sampled(p: f64, n: usize, rng: &mut ChaCha8Rng) -> f64 {
    (0..n).filter(|_| rng.random::<f64>() < p).count() as f64 / n as f64
}

fn overlaps(records: &mut Records, planted: Planted, rng: &mut ChaCha8Rng) {
    let population = 1_000_000;
    let of_family = OfTasks::new(rng, 0.005);
    for size in SIZES {
        let circuit = (size * population as f64) as usize;
        // Masks that prefer large weights share twice what independent ones would, at most everything.
        let chance = (2.0 * size).min(1.0) * 0.8 * circuit as f64;
        let mut add = |a: &str, b: &str, draw_b: usize, way: f64| {
            records.overlaps.push(Overlap {
                preset: SCHEDULED_TOP_K.into(),
                target_density: size,
                task_a: a.into(),
                task_b: b.into(),
                draw_b,
                intersection: (chance + way * (circuit as f64 - chance)) as usize,
                size_a: circuit,
                size_b: circuit,
                population,
                expected_intersection_stratified: size * circuit as f64,
                expected_intersection_matched: chance,
            });
        };
        for (i, a) in TASKS.iter().enumerate() {
            add(a, a, 1, 0.8);
            for b in &TASKS[..i] {
                // Tasks of a family are near duplicates.
                let within = if family(a) == family(b) { 0.1 } else { 0.0 };
                let noise = of_family.of(a) + of_family.of(b) + 0.005 * normal(rng);
                add(a, b, 0, within + planted.overlap + noise);
            }
        }
    }
}

/// In how many worlds each claim is supported.
fn supported(planted: Planted) -> Vec<(String, usize)> {
    use rayon::prelude::*;
    let worlds: Vec<Vec<(String, Verdict)>> = (0..WORLDS as u64)
        .into_par_iter()
        .map(|seed| {
            let claims = decide(&world(seed, planted), &options());
            claims.into_iter().map(|claim| (claim.id, claim.verdict)).collect()
        })
        .collect();
    let count = |i: usize| worlds.iter().filter(|claims| claims[i].1 == Verdict::Supported).count();
    worlds[0].iter().enumerate().map(|(i, (id, _))| (id.clone(), count(i))).collect()
}

#[test]
fn absent_effects_are_not_supported() {
    let found = supported(Planted::default());
    assert_eq!(found.len(), 7);
    for (id, n) in found {
        assert!(n <= MOST_FALSE, "{id}: supported in {n} of {WORLDS} null worlds");
    }
}

#[test]
fn planted_effects_are_found() {
    let planted = Planted {
        knowledge: 0.6,
        resistance: 1.8,
        ideal_size: 0.25,
        overlap: 0.2,
        layer_norm: 0.4,
        intact: 2.0,
        level: 1.5,
    };
    let found = supported(planted);
    for (id, n) in found {
        assert!(n >= FEWEST_FOUND, "{id}: supported in {n} of {WORLDS} worlds with the effect");
    }
}
