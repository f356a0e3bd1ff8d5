//! Causal tracing over many facts (X3, `locus trace`).

use anyhow::{Context, Result};
use locus_circuits::tracing::{
    KnownFact, MeanEffects, PatchedState, TokenPosition, Tracing, average_effects, trace_fact,
};
use locus_data::EditRequest;
use locus_gpt2::{Gpt2, Scalar, Tokenizer, compiled};

use crate::records::{TracedEffect, TracingRecord};

/// The true facts that edit requests are about.
///
/// # Errors
/// As [`KnownFact::from_text`].
pub fn facts_of_requests(tokenizer: &Tokenizer, requests: &[EditRequest]) -> Result<Vec<KnownFact>> {
    requests
        .iter()
        .map(|request| {
            KnownFact::from_text(tokenizer, &request.full_prompt(), &request.subject, &request.target_true)
                .with_context(|| format!("request {}", request.case_id))
        })
        .collect()
}

/// Traces the facts that the model knows (the answer is its likeliest next token) and averages their effects. `None`
/// when it knows none. `how` makes the settings from the known facts; `done` is called once for each fact.
///
/// # Errors
/// When a fact does not fit the model.
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
    for MeanEffects { what, mean, facts } in average_effects(&known, &effects) {
        for (place, row) in TokenPosition::ALL.into_iter().zip(mean.rows()) {
            traced.push(TracedEffect {
                what: what.name().into(),
                place: place.name().into(),
                facts: facts[place as usize],
                by_layer: row.to_vec(),
            });
        }
    }
    let layers = model.config().n_layer;
    for (name, severed) in [("without mlp", 0), ("without attention", 1)] {
        let line = |layer: usize| {
            mean(&|i| [&effects[i].without_mlp, &effects[i].without_attention][severed][layer])
        };
        traced.push(TracedEffect {
            what: format!("{} {name}", PatchedState::Hidden.name()),
            place: TokenPosition::LastSubject.name().into(),
            facts: known.len(),
            by_layer: (0..layers).map(line).collect(),
        });
    }
    Ok(Some(TracingRecord {
        facts: known.len(),
        unknown: facts.len() - known.len(),
        samples: how.samples,
        noise: how.noise,
        window: how.window,
        clean: mean(&|i| effects[i].clean),
        corrupted: mean(&|i| effects[i].corrupted),
        effects: traced,
    }))
}
