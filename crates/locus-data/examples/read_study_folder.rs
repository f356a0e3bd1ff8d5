//! Reads a folder with the study's data, splits every task, and shows the first edit requests.
//!
//! `cargo run -p locus-data --example read_study_folder`

use locus_data::{Family, Result, StudyData, split};

fn main() -> Result<()> {
    let data = StudyData::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism/data"))?;

    println!("{:<14} {:<10} {:>6} {:>9} {:>12}", "task", "family", "train", "held out", "of label 1");
    for task in &data.tasks {
        let parts = split(task.rows.len(), 0.8, 42, &task.name);
        let ones = parts.held_out.iter().filter(|&&row| task.rows[row].label == 1).count();
        let family = Family::of(&task.name).map_or_else(String::new, |family| format!("{family:?}"));
        let (train, held_out) = (parts.train.len(), parts.held_out.len());
        println!("{:<14} {family:<10} {train:>6} {held_out:>9} {ones:>12}", task.name);
        assert_eq!(train + held_out, task.rows.len());
    }

    println!("\n{} edit requests, for example", data.requests.len());
    for request in &data.requests[..3] {
        let old = request.target_true.as_ref().expect("every request of the study has a true target");
        let (prompt, new) = (request.full_prompt(), &request.target_new);
        println!("  {prompt} {old} -> {new}");
        for paraphrase in &request.paraphrase_prompts {
            println!("    also: {paraphrase}");
        }
        assert_ne!(old, new);
    }

    // Every file is cited by its hash, so that a result can name the data it came from.
    let (file, sha256) = &data.sources[0];
    println!("\n{} files; {file} has SHA-256 {sha256}", data.sources.len());
    assert_eq!((data.tasks.len(), data.requests.len(), data.sources.len()), (14, 198, 16));
    Ok(())
}
