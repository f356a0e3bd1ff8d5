//! Says in one line what is missing when the system's OpenBLAS is asked for and is not there; the linker would say it
//! in a hundred.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let wants_system = std::env::var_os("CARGO_FEATURE_OPENBLAS_SYSTEM").is_some();
    if !wants_system || std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/OpenBLAS/lib"];
    let found = folders.iter().any(|folder| has_openblas(Path::new(folder)))
        || std::env::var("LIBRARY_PATH")
            .is_ok_and(|path| std::env::split_paths(&path).any(|p| has_openblas(&p)));
    if !found {
        println!("cargo::error=OpenBLAS is missing; install it with: sudo apt-get install libopenblas-dev");
    }
}

/// Looks in the folder and one level below, where Debian keeps a folder per architecture.
fn has_openblas(folder: &Path) -> bool {
    let library =
        |folder: &Path| folder.join("libopenblas.so").exists() || folder.join("libopenblas.a").exists();
    let below = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    library(folder) || below.filter(|path| path.is_dir()).any(|path| library(&path))
}
