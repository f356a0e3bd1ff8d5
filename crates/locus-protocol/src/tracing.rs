//! Causal tracing over many facts (X3, `locus trace`).

use anyhow::{Context, Result, bail, ensure};
use locus_circuits::tracing::{
    Effects, KnownFact, MeanEffects, PatchedState, TokenPosition, Tracing, average_effects, trace_fact,
};
use locus_data::EditRequest;
use locus_gpt2::{Batch, Gpt2, Scalar, Tokenizer, compiled, last_hidden};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap_mean};
use locus_metrics::{Interval, Stream};

use crate::records::{TracedEffect, TracingRecord};
use crate::write::OVERFLOW;

/// The true facts that edit requests are about, as far as they can be traced: those whose answer is one token.
///
/// # Errors
/// When a text cannot be tokenised.
pub fn facts_of_requests(tokenizer: &Tokenizer, requests: &[EditRequest]) -> Result<Vec<KnownFact>> {
    let mut facts = Vec::with_capacity(requests.len());
    for request in requests {
        let Some(answer) = request.target_true.as_deref().map(str::trim) else { continue };
        if tokenizer.encode(&format!(" {answer}"))?.len() == 1 {
            let start = request.prompt.trim().find("{}").unwrap_or_default();
            let subject = start..start + request.subject.trim().len();
            let fact = KnownFact::located(tokenizer, &request.full_prompt(), subject, answer);
            facts.push(fact.with_context(|| format!("request {}", request.case_id))?);
        }
    }
    Ok(facts)
}

/// Traces the facts that the model knows (the answer is its likeliest next token) and averages their effects, with
/// intervals over facts. `None` when it knows none. `how` makes the settings from the known facts; its seed is that of
/// the noise and of the bootstrap. `done` is called once for each fact.
///
/// # Errors
/// When a fact does not fit the model, or a probability is not finite.
pub fn trace_all<F: Scalar>(
    model: &Gpt2<F>,
    facts: &[KnownFact],
    how: &dyn Fn(&[KnownFact]) -> Tracing,
    done: &mut dyn FnMut(),
) -> Result<Option<TracingRecord>> {
    F::run::<TraceJob>((model, facts, how, done))
}

type TraceIn<'a, F> =
    (&'a Gpt2<F>, &'a [KnownFact], &'a dyn Fn(&[KnownFact]) -> Tracing, &'a mut dyn FnMut());

compiled!(TraceJob<'a>: <F> TraceIn<'a, F> => Result<Option<TracingRecord>>, trace_known);

fn trace_known<F: Scalar>((model, facts, how, done): TraceIn<F>) -> Result<Option<TracingRecord>> {
    let mut known = Vec::new();
    for fact in facts {
        if fact.is_known(model)? {
            known.push(fact.clone());
        } else {
            done();
        }
    }
    if known.is_empty() {
        // A model whose states overflow answers wrongly, too.
        for fact in facts {
            let hidden = last_hidden(model, &Batch::new(model.config(), &[&fact.prompt])?);
            ensure!(hidden.iter().all(|x| x.is_finite()), "{OVERFLOW}");
        }
        return Ok(None);
    }
    let how = how(&known);
    let mut effects = Vec::with_capacity(known.len());
    for fact in &known {
        effects.push(trace_fact(model, fact, &how)?);
        done();
    }
    let mean = |value: &dyn Fn(usize) -> f64| (0..known.len()).map(value).sum::<f64>() / known.len() as f64;
    let mut traced = Vec::new();
    for MeanEffects { what, by_fact, .. } in average_effects(&known, &effects) {
        for (place, rows) in TokenPosition::ALL.into_iter().zip(&by_fact) {
            let by_layer: Vec<Vec<f64>> = rows.columns().into_iter().map(|layer| layer.to_vec()).collect();
            traced.push(effect(what.name(), place, &by_layer, how.seed));
        }
    }
    for (name, severed) in [("without mlp", 0), ("without attention", 1)] {
        let at = |layer: usize| {
            let of_fact =
                |effects: &Effects| [&effects.without_mlp, &effects.without_attention][severed][layer];
            effects.iter().map(of_fact).collect()
        };
        let by_layer: Vec<Vec<f64>> = (0..model.config().n_layer).map(at).collect();
        let what = format!("{} {name}", PatchedState::Hidden.name());
        traced.push(effect(&what, TokenPosition::LastSubject, &by_layer, how.seed));
    }
    let [clean, corrupted] = [mean(&|i| effects[i].clean), mean(&|i| effects[i].corrupted)];
    let all = traced.iter().flat_map(|effect| &effect.by_layer).map(|effect| effect.value);
    if let Some(value) = all.chain([clean, corrupted]).find(|value| !value.is_finite()) {
        bail!("a probability or effect is {value}; {OVERFLOW}");
    }
    Ok(Some(TracingRecord {
        facts: known.len(),
        unknown: facts.len() - known.len(),
        samples: how.samples,
        noise: how.noise,
        window: how.window,
        clean,
        corrupted,
        effects: traced,
    }))
}

/// Means over facts of their effects, of which `by_layer` has one list for each layer, with intervals. Every number of one
/// place is resampled alike, so that intervals can be compared over layers and kinds of state.
fn effect(what: &str, place: TokenPosition, by_layer: &[Vec<f64>], seed: u64) -> TracedEffect {
    let stream = Stream::named(seed, &format!("traced effects/{}", place.name()));
    let interval = |of_facts: &Vec<f64>| match of_facts.as_slice() {
        [] => Interval { value: 0.0, low: 0.0, high: 0.0 },
        _ => bootstrap_mean(of_facts, RESAMPLES, stream),
    };
    TracedEffect {
        what: what.to_owned(),
        place: place.name().into(),
        facts: by_layer.first().map_or(0, Vec::len),
        by_layer: by_layer.iter().map(interval).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_means_over_facts_with_intervals_and_zero_without_facts() {
        let found = effect("hidden", TokenPosition::Last, &[vec![0.2, 0.4, 0.9], vec![0.5; 3]], 3);
        assert_eq!((found.place.as_str(), found.facts), ("last token", 3));
        let Interval { value, low, high } = found.by_layer[0];
        assert!((value - 0.5).abs() < 1e-12);
        assert!(0.2 <= low && low < value && value < high && high <= 0.9, "{low} {high}");
        assert_eq!(found.by_layer[1], Interval { value: 0.5, low: 0.5, high: 0.5 });
        let none = effect("hidden", TokenPosition::Last, &[vec![], vec![]], 3);
        assert_eq!((none.facts, none.by_layer[0].value, none.by_layer.len()), (0, 0.0, 2));
    }
}
