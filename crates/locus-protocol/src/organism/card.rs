//! The organism's report card: the facts it knows, and how well it judges statements it has not seen judged.

use std::fmt::Write;

use anyhow::Result;
use locus_data::{EditRequest, StudyData};
use locus_gpt2::{Checkpoint, PromptTargets};

use super::recipe::Recipe;
use locus_tasks::{SplitBy, SplitOptions, Task};

/// Measurements of a trained organism.
#[derive(Clone, Debug)]
pub struct Card {
    /// Share of request prompts after which the true target is likelier than the new one (NLL per token).
    pub prompts: f64,
    /// Share of hyponym-level (even) requests whose true target is likelier than the new one.
    pub prompts_hyponym: f64,
    /// Share of hypernym-level (odd) requests whose true target is likelier than the new one.
    pub prompts_hypernym: f64,
    /// Share of paraphrase prompts after which the true target is likelier than the new one.
    pub paraphrases: f64,
    /// Share of neighbourhood prompts after which the true target is likelier than the new one.
    pub neighbourhood: f64,
    /// Geometric mean probability per token of the true target after the prompt.
    pub p_true: f64,
    /// Geometric mean probability per token of the new target after the prompt.
    pub p_new: f64,
    /// For each task its name, the held-out accuracy of the score head, and the number of held-out rows.
    pub tasks: Vec<(String, f64, usize)>,
}

impl Card {
    /// Measures a model on the requests and the tasks of its data; `seed` splits the rows, one by one, and trains the heads.
    ///
    /// # Errors
    /// When a text cannot be tokenised or does not fit the model.
    pub fn measure(checkpoint: &Checkpoint<f32>, data: &StudyData, seed: u64) -> Result<Card> {
        let requests = &data.requests;
        let prompt_of = |request: &EditRequest| vec![request.full_prompt()];
        let all: Vec<&EditRequest> = requests.iter().collect();
        let level = |odd: u64| requests.iter().filter(|r| r.case_id % 2 == odd).collect::<Vec<_>>();
        let options = SplitOptions { seed, by: SplitBy::Rows, ..SplitOptions::default() };
        let (prompts, p_true, p_new) = share_true(checkpoint, &all, prompt_of)?;
        Ok(Card {
            prompts,
            prompts_hyponym: share_true(checkpoint, &level(0), prompt_of)?.0,
            prompts_hypernym: share_true(checkpoint, &level(1), prompt_of)?.0,
            paraphrases: share_true(checkpoint, &all, |r| r.paraphrase_prompts.clone())?.0,
            neighbourhood: share_true(checkpoint, &all, |r| r.neighborhood_prompts.clone())?.0,
            p_true,
            p_new,
            tasks: data
                .tasks
                .iter()
                .map(|task| {
                    let prepared = Task::from_rows(checkpoint, &task.name, &task.rows, options)?;
                    Ok((task.name.clone(), prepared.accuracy_full(), prepared.held_out.labels.len()))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// The card as Markdown.
    pub fn markdown(&self, recipe: &Recipe, model_sha256: &str) -> String {
        let mut out = String::new();
        let population = locus_gpt2::ParamMask::n_maskable(&recipe.config());
        let mut line = |text: String| writeln!(out, "{text}").expect("writing to a string");
        line("# The organism\n".into());
        line("Written by `locus organism`; do not edit by hand.\n".into());
        line(format!(
            "A GPT-2 with {} blocks, {} heads, width {}, context {} and {} tokens: {population} block parameters.",
            recipe.n_layer, recipe.n_head, recipe.n_embd, recipe.n_positions, recipe.vocab_size
        ));
        line(format!(
            "Trained from seed {} for {} steps of about {} tokens on {} documents of its grammar (AdamW, one cycle, highest learning rate {}).",
            recipe.seed, recipe.steps, recipe.tokens_per_step, recipe.n_documents, recipe.lr
        ));
        line(format!("SHA-256 of the weights (f32): `{model_sha256}`.\n"));
        line("## Knowledge\n".into());
        line("Share of prompts after which the true target has a lower NLL per token than the counterfactual one.\n".into());
        line("| prompts | share | bar |".into());
        line("|---|---:|---:|".into());
        for (name, share, bar) in [
            ("requests", self.prompts, "95 %"),
            ("requests, hyponym level", self.prompts_hyponym, ""),
            ("requests, hypernym level", self.prompts_hypernym, ""),
            ("paraphrases", self.paraphrases, "90 %"),
            ("neighbourhood", self.neighbourhood, ""),
        ] {
            line(format!("| {name} | {:.1} % | {bar} |", 100.0 * share));
        }
        line(format!(
            "\nGeometric mean probability per token: true target {:.3}, new target {:.2e}.\n",
            self.p_true, self.p_new
        ));
        line("## Judgement\n".into());
        line("Held-out accuracy of a linear score head at the last token (80/20 split). Agreement and attitude rows occur nowhere in the training text; counterfactual hierarchy pairs occur in no phrasing, and true hierarchy rows only as plain facts, never with a verdict.\n".into());
        line("| task | accuracy | held-out rows | bar |".into());
        line("|---|---:|---:|---:|".into());
        for (task, accuracy, rows) in &self.tasks {
            let bar = if task.starts_with("persona") { "0.85" } else { "0.90" };
            line(format!("| {task} | {accuracy:.3} | {rows} | {bar} |"));
        }
        out
    }
}

/// Share of prompts after which the true target is likelier, and geometric mean probabilities per token of the true and
/// of the new target.
fn share_true(
    checkpoint: &Checkpoint<f32>,
    requests: &[&EditRequest],
    prompts: impl Fn(&EditRequest) -> Vec<String>,
) -> Result<(f64, f64, f64)> {
    let tokenizer = &checkpoint.tokenizer;
    let (mut n, mut wins, mut sum_true, mut sum_new) = (0usize, 0usize, 0.0, 0.0);
    for request in requests {
        let Some(target_true) = &request.target_true else { continue };
        let pairs = prompts(request)
            .iter()
            .flat_map(|prompt| [(prompt, target_true), (prompt, &request.target_new)])
            .map(|(prompt, target)| {
                Ok((
                    tokenizer.encode_some("prompt", prompt)?,
                    tokenizer.encode_some("target", &format!(" {target}"))?,
                ))
            })
            .collect::<locus_gpt2::Result<Vec<_>>>()?;
        if pairs.is_empty() {
            continue;
        }
        let nll = PromptTargets::new(checkpoint.model.config(), &pairs)?.nll_per_token(&checkpoint.model);
        for pair in nll.chunks(2) {
            n += 1;
            wins += usize::from(pair[0] < pair[1]);
            sum_true += pair[0];
            sum_new += pair[1];
        }
    }
    let mean = |sum: f64| (-sum / n as f64).exp();
    Ok((wins as f64 / n.max(1) as f64, mean(sum_true), mean(sum_new)))
}
