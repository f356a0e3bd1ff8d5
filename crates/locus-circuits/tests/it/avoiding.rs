//! Rival circuits of parameters: the charge's gradient, and that circuits share less for it.

use locus_circuits::masks::{Avoiding, MaskTrainer, Objective, ScheduledTopK};
use locus_gpt2::{ParamEntries, ParamId};
use locus_testkit::check_directional;

use crate::support::{Case, flat, with_blocks};

#[test]
fn the_gradient_of_the_charge_is_its_derivative() {
    let case = Case::new(12, 4);
    let (one, two) = (case.random_mask(0.3, 1), case.random_mask(0.2, 2));
    let objective = case.objective();
    let avoiding = Avoiding::new(&objective, &[&one, &two], 3.0);
    let rows: Vec<usize> = (0..12).collect();
    let masked = one.ablate_complement(&case.model);
    let (loss, gradient) = avoiding.gradient(&masked, &rows).unwrap();
    check_directional("charged", &flat(&masked), &flat(&gradient), 4, |values| {
        avoiding.gradient(&with_blocks(&masked, values), &rows).unwrap().0
    });
    // A circuit pays its own share in full, and for what it shares with the other. Weights of 0 cost nothing.
    let zeros = |mask: &locus_gpt2::ParamMask| {
        mask.tensors()
            .map(|(id, inside)| inside.indices().filter(|&i| case.model.get(id)[i] != 0.0).count())
            .sum::<usize>() as f64
    };
    let each = 3.0 * 2.0 / (one.count() + two.count()) as f64;
    let expected =
        objective.gradient(&masked, &rows).unwrap().0 + each * (zeros(&one) + zeros(&one.intersection(&two)));
    assert!((loss - expected).abs() < 1e-9, "{loss} against {expected}");
    let id = ParamId::maskable(case.model.config()).next().unwrap();
    let entries = [ParamEntries::new(case.model.config(), id, vec![1, 3])];
    let (at_loss, at) = avoiding.gradient_at(&masked, &rows, &entries).unwrap();
    assert!((at_loss - loss).abs() < 1e-12);
    assert!((at[0][1] - gradient.get(id)[3]).abs() < 1e-12);
}

#[test]
fn rivals_share_less_and_do_the_task() {
    let case = Case::new(60, 6);
    let recipe =
        ScheduledTopK { steps_per_target: 60, hold: 30, batch_sequences: 64, ..ScheduledTopK::default() };
    let objective = case.objective();
    let train = |objective: &dyn Objective<f64>, seed| {
        recipe.train(objective, &[0.3], seed, &mut |_| {}).unwrap().remove(0).mask
    };
    let first = train(&objective, 1);
    let again = train(&objective, 2);
    let rival = train(&Avoiding::new(&objective, &[&first], 2.0), 2);
    let shared =
        |other: &locus_gpt2::ParamMask| first.intersection(other).count() as f64 / first.count() as f64;
    assert!(shared(&rival) < 0.8 * shared(&again), "{} against {}", shared(&rival), shared(&again));
    let agreements = [case.agreement(&first), case.agreement(&rival)];
    assert!(agreements.iter().all(|&agreement| agreement >= 0.9), "{agreements:?}");
}
