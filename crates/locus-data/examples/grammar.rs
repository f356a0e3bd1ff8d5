//! A small world from a seed: documents to train on, tasks that no document gives away, and facts to edit.
//!
//! `cargo run -p locus-data --example grammar`

use locus_data::grammar;

fn main() {
    let corpus = grammar::generate(7, 2000);

    println!("documents");
    for document in &corpus.documents[..4] {
        println!("  {document}");
    }
    println!("\n{:<14} label  first rows", "task");
    for task in
        corpus.tasks.iter().filter(|task| ["hierarchy", "blimp_dna1", "persona_e"].contains(&&*task.name))
    {
        for row in &task.rows[..2] {
            println!("{:<14} {:>5}  {}", task.name, row.label, row.text);
        }
    }
    let request = &corpus.requests[0];
    let old = request.target_true.as_deref().unwrap_or("?");
    println!("\nedit: {} {old} -> {}", request.full_prompt(), request.target_new);

    // Counterfactual targets are held out: no document says that the edited subject is what it will be edited into.
    let counterfactual = format!("{} {}", request.full_prompt(), request.target_new);
    assert!(!corpus.documents.iter().any(|document| document.contains(&counterfactual)));
    // A smaller corpus is the beginning of a larger one, and the tasks are the same.
    let smaller = grammar::generate(7, 100);
    assert!(corpus.documents.starts_with(&smaller.documents) && corpus.tasks == smaller.tasks);
}
