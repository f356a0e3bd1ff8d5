//! The committed inputs, without libFuzzer: `cargo test` in this folder replays all of them.

use std::path::Path;

#[test]
fn seeds_are_read_or_refused() {
    let targets: [(&str, fn(&[u8])); 12] = [
        ("weights", locus_fuzz::weights),
        ("config", locus_fuzz::config),
        ("tokenizer", locus_fuzz::tokenizer),
        ("mask", locus_fuzz::mask),
        ("patch", locus_fuzz::patch),
        ("key_statistics", locus_fuzz::key_statistics),
        ("key_statistics_npz", locus_fuzz::key_statistics_npz),
        ("labelled_csv", locus_fuzz::labelled_csv),
        ("requests", locus_fuzz::requests),
        ("pairs_jsonl", locus_fuzz::pairs_jsonl),
        ("pairs_csv", locus_fuzz::pairs_csv),
        ("manifest", locus_fuzz::manifest),
    ];
    for (target, run) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            run(&std::fs::read(path).unwrap());
        }
    }
}
