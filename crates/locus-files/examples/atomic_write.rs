//! A file that readers meet whole or not at all, and the hash by which a result would name it.

fn main() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("results/table.csv");
    for text in ["task,agreement\n", "task,agreement\nhierarchy,0.98\n"] {
        locus_files::write_atomically(&path, text.as_bytes())?;
        println!("{}  {} bytes", locus_files::sha256_file(&path)?, text.len());
        assert_eq!(locus_files::sha256_file(&path)?, locus_files::sha256(text.as_bytes()));
    }
    Ok(())
}
