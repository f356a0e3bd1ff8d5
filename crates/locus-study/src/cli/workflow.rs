//! A plan as input of the engines that people have: a Snakemake workflow and a script of Slurm arrays.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

/// A unit as printed.
#[derive(Debug, Serialize)]
pub struct PrintedUnit {
    pub name: String,
    /// Units that must be done before.
    pub needs: Vec<String>,
    /// Estimated floating-point operations.
    pub flops: f64,
    /// Estimated time on this machine in a process of its own, in seconds.
    pub seconds: f64,
    /// Estimated memory at the peak of such a process.
    pub memory_bytes: u64,
}

/// A Snakemake workflow (version 8 and later): a job for each unit, then the report.
pub fn snakemake(units: &[PrintedUnit], options: &[String], out: &Path) -> Result<String> {
    let needs: BTreeMap<&str, &[String]> =
        units.iter().map(|unit| (unit.name.as_str(), unit.needs.as_slice())).collect();
    let minutes: BTreeMap<&str, u64> =
        units.iter().map(|unit| (unit.name.as_str(), minutes(unit.seconds))).collect();
    Ok(format!(
        r#"# A run of the study, made by `locus plan --format snakemake`.
# Run it with: snakemake --snakefile THIS_FILE --cores 2 --rerun-incomplete
# Runs elsewhere go through Snakemake's executors, for example --executor slurm --jobs 20.

OUT = {out}
OPTIONS = {options}
# Units of work, each with those whose results it reads.
NEEDS = {needs}
# Minutes to ask for, by the pace of the machine that made the plan.
MINUTES = {minutes}


# A mark for each unit that this workflow has seen done; results are kept by locus in OUT, which others may fill, too.
def done(unit):
    return OUT + ".units/" + unit


rule report:
    input: [done(unit) for unit in NEEDS]
    output: OUT + "/report.html"
    params: options=OPTIONS, out=OUT
    shell: "locus reproduce --resume {{params.options}} --threads {{threads}} --out {{params.out:q}}"


rule unit:
    input: lambda wildcards: [done(unit) for unit in NEEDS[wildcards.unit]]
    output: touch(OUT + ".units/{{unit}}")
    wildcard_constraints: unit="[^/]+"
    resources: runtime=lambda wildcards: MINUTES[wildcards.unit]
    params: options=OPTIONS, out=OUT
    shell: "locus run-unit {{wildcards.unit:q}} {{params.options}} --threads {{threads}} --out {{params.out:q}}"
"#,
        out = serde_json::to_string(&out.to_string_lossy())?,
        options = serde_json::to_string(&command_line(options))?,
        needs = serde_json::to_string_pretty(&needs)?,
        minutes = serde_json::to_string_pretty(&minutes)?,
    ))
}

/// A shell script that submits an array of Slurm jobs for each level of the plan, then the report.
pub fn slurm(units: &[PrintedUnit], options: &[String], out: &Path) -> Result<String> {
    let (out, options) = (quoted(&out.to_string_lossy()), command_line(options));
    let mut level: BTreeMap<&str, usize> = BTreeMap::new();
    let mut levels: Vec<Vec<&PrintedUnit>> = Vec::new();
    for unit in units {
        let at = unit.needs.iter().map(|name| level[name.as_str()] + 1).max().unwrap_or_default();
        level.insert(&unit.name, at);
        levels.resize_with(levels.len().max(at + 1), Vec::new);
        levels[at].push(unit);
    }
    let mut script = String::from(
        "#!/usr/bin/env bash\n\
         # A run of the study, made by `locus plan --format slurm`: run it where sbatch can be called.\n\
         # Options of sbatch, for example a partition, go into SBATCH_OPTIONS.\n\
         set -euo pipefail\n\
         after=()\n",
    );
    for units in &levels {
        let names: Vec<String> = units.iter().map(|unit| quoted(&unit.name)).collect();
        let minutes = units.iter().map(|unit| minutes(unit.seconds)).max().unwrap_or(1);
        write!(
            script,
            r#"
job=$(sbatch --parsable ${{SBATCH_OPTIONS:-}} "${{after[@]}}" --array=0-{last} --time={minutes} <<'JOB'
#!/usr/bin/env bash
units=(
    {names}
)
exec locus run-unit "${{units[$SLURM_ARRAY_TASK_ID]}}" {options} --out {out}
JOB
)
after=(--dependency=afterok:"${{job%%;*}}")
"#,
            names = names.join("\n    "),
            last = units.len() - 1,
        )?;
    }
    write!(
        script,
        r#"
sbatch --parsable ${{SBATCH_OPTIONS:-}} "${{after[@]}}" <<'JOB'
#!/usr/bin/env bash
exec locus reproduce --resume {options} --out {out}
JOB
"#
    )?;
    Ok(script)
}

/// Time to ask for, in minutes: three times the estimate and ten more.
fn minutes(seconds: f64) -> u64 {
    (3.0 * seconds / 60.0).ceil() as u64 + 10
}

fn command_line(options: &[String]) -> String {
    options.iter().map(|option| quoted(option)).collect::<Vec<_>>().join(" ")
}

/// A word as the shell reads it unchanged.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,+:@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("a-b_c.d/e=1,2"), "a-b_c.d/e=1,2");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("$HOME"), "'$HOME'");
    }

    /// A unit that needs others is in a later array.
    #[test]
    fn arrays_follow_the_levels() {
        let unit = |name: &str, needs: &[&str]| PrintedUnit {
            name: name.into(),
            needs: needs.iter().map(|&name| name.into()).collect(),
            flops: 1.0,
            seconds: 90.0,
            memory_bytes: 1,
        };
        let units = [unit("a", &[]), unit("b", &["a"]), unit("c", &[]), unit("d", &["b", "c"])];
        let script = slurm(&units, &["--quick".into()], Path::new("out dir")).unwrap();
        let arrays: Vec<&str> = script.lines().filter(|line| line.contains("--array=")).collect();
        assert_eq!(arrays.len(), 3);
        assert!(arrays[0].contains("--array=0-1") && arrays[0].contains("--time=15"), "{}", arrays[0]);
        assert!(script.contains("locus reproduce --resume --quick --out 'out dir'"), "{script}");
        let at = |name: &str| script.find(&format!("\n    {name}\n")).unwrap();
        assert!(at("a") < at("c") && at("c") < at("b") && at("b") < at("d"));
    }
}
