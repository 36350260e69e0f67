//! Times seqrs beside other Rust libraries that have recurrent layers, on the same weights
//! and inputs: burn, candle, tract and rust-lstm, and on a GPU burn on wgpu.
//!
//! ```text
//! make bench-rust-peers
//! make bench-rust-peers ARGS="--cases 'train/*' --threads 1 --json train.json"
//! make bench-rust-peers-gpu
//! ```
//! Each number of threads has a process of its own, as the libraries read it once. Before a
//! case is timed, every library's results are compared with those of seqrs on the processor;
//! one that differs or fails is named and not timed, and the run fails. `benches/README.md`
//! says how to read the numbers.

mod case;
mod clock;
mod contender;
mod peers;
mod problem;
mod report;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::thread::available_parallelism;
use std::{env, fs, io};

use crate::case::{Case, Device};
use crate::clock::{median, take_turns};
use crate::contender::{Contender, Failure, Library, Results, compared};
use crate::peers::{LIBRARIES, REFERENCE};
use crate::problem::Problem;
use crate::report::{Record, Row};

const USAGE: &str = "\
options:
  --device cpu|gpu        what computes (cpu)
  --cases PATTERN[,...]   cases with such names; * stands for anything (all)
  --threads N[,...]       numbers of threads (1,2; with a GPU 1)
  --seconds S             time for each library at each case (0.5)
  --json FILE             writes a record
  --show FILE[,...]       shows records instead of measuring
  --trial                 on a GPU: tiny sizes and no speeds; does everything run?
  --list                  prints the names of the cases
  --help                  prints this";

/// Variables that say how many threads the libraries use.
const THREADS: [&str; 3] = ["SEQRS_NUM_THREADS", "RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"];

#[derive(Debug)]
struct Options {
    device: Device,
    cases: Vec<Case>,
    threads: Vec<usize>,
    seconds: f64,
    json: Option<String>,
    show: Vec<String>,
    trial: bool,
    list: bool,
    help: bool,
    /// For the process that does the work: print rows as they come, for this one number of
    /// threads.
    measure: bool,
}

impl Options {
    fn new(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            device: Device::Cpu,
            cases: Vec::new(),
            threads: Vec::new(),
            seconds: 0.5,
            json: None,
            show: Vec::new(),
            trial: false,
            list: false,
            help: false,
            measure: false,
        };
        let mut patterns = None;
        let mut arguments = arguments;
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} takes a value"));
            match option.as_str() {
                "--device" => {
                    options.device = match value()?.as_str() {
                        "cpu" => Device::Cpu,
                        "gpu" => Device::Gpu,
                        other => return Err(format!("--device: cpu or gpu, not {other}").into()),
                    }
                }
                "--cases" => patterns = Some(value()?),
                "--threads" => {
                    let threads = value()?;
                    let numbers = threads.split(',').map(|n| n.parse().ok().filter(|&n| n > 0));
                    let numbers: Option<_> = numbers.collect();
                    options.threads = numbers.ok_or(format!("--threads: {threads}?"))?;
                }
                "--seconds" => options.seconds = value()?.parse()?,
                "--json" => options.json = Some(value()?),
                "--show" => options.show.extend(value()?.split(',').map(str::to_string)),
                "--trial" => options.trial = true,
                "--list" => options.list = true,
                "--help" => options.help = true,
                "--measure" => options.measure = true,
                _ => return Err(format!("{option}: unknown\n{USAGE}").into()),
            }
        }
        if options.trial {
            options.seconds = 0.0;
        }
        options.cases = match (options.device, options.trial) {
            (Device::Gpu, true) => Case::trial(),
            (device, false) => Case::all(device),
            (Device::Cpu, true) => return Err("--trial: with --device gpu alone".into()),
        };
        if let Some(patterns) = patterns {
            let wanted = |case: &Case| patterns.split(',').any(|pattern| case.is_like(pattern));
            options.cases.retain(wanted);
            if options.cases.is_empty() {
                return Err(format!("no case is like {patterns}; --list names them").into());
            }
        }
        if options.threads.is_empty() {
            options.threads = match options.device {
                Device::Cpu => vec![1, 2],
                Device::Gpu => vec![1],
            };
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match Options::new(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every library that took part had the right results.
fn run(options: &Options) -> Result<bool, Failure> {
    if options.help {
        println!("{USAGE}");
        return Ok(true);
    }
    if options.list {
        let names: Vec<_> = options.cases.iter().map(Case::name).collect();
        println!("{}", names.join("\n"));
        return Ok(true);
    }
    if options.measure {
        return measure(options);
    }
    let (record, right) = match options.show.is_empty() {
        true => collect(options)?,
        false => (read(&options.show)?, true),
    };
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&record)? + "\n")?;
    }
    if options.trial {
        for library in LIBRARIES.iter().filter(|library| library.device == options.device) {
            let rows = record.rows.iter().filter(|row| row.library == library.name);
            println!("{}: {} of {} cases ran", library.name, rows.count(), options.cases.len());
        }
    } else {
        println!("{}\n{}", record.tables(), record.goals());
    }
    Ok(right)
}

/// Measures in a process for each number of threads.
fn collect(options: &Options) -> Result<(Record, bool), Failure> {
    let adapter = match options.device {
        Device::Cpu => None,
        Device::Gpu => Some(peers::adapter()?),
    };
    if let Some(adapter) = &adapter {
        println!("{}", adapter.name);
        if adapter.is_software && !options.trial {
            let words = "expected a GPU, got one made of software: its speed says nothing";
            return Err(format!("{words} (--trial)").into());
        }
    }
    let mut record = Record {
        adapter: adapter.map(|adapter| adapter.name),
        level: peers::level()?,
        processors: available_parallelism()?.get(),
        versions: versions(),
        rows: Vec::new(),
    };
    let names: Vec<_> = options.cases.iter().map(Case::name).collect();
    let mut right = true;
    for threads in &options.threads {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--measure", "--threads", &threads.to_string()]);
        if options.device == Device::Gpu {
            command.args(["--device", "gpu"]);
        }
        if options.trial {
            command.arg("--trial");
        }
        command.args(["--cases", &names.join(","), "--seconds", &options.seconds.to_string()]);
        command.envs(THREADS.map(|name| (name, threads.to_string())));
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no output to read")?;
        for line in BufReader::new(output).lines() {
            record.rows.push(serde_json::from_str(&line?)?);
        }
        let status = process.wait()?;
        if !status.success() {
            eprintln!("threads {threads}: {status}");
            right = false;
        }
    }
    Ok((record, right))
}

/// Several records as one; of a case that is in more than one, the first counts.
fn read(paths: &[String]) -> Result<Record, Failure> {
    let mut records = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        records.push(serde_json::from_str::<Record>(&text)?);
    }
    let all = records.into_iter().reduce(|mut all, record| {
        all.rows.extend(record.rows);
        all
    });
    all.ok_or_else(|| "no records".into())
}

/// The versions of the libraries, as the lock file has them.
fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let mut name = "";
    for line in include_str!("../Cargo.lock").lines() {
        let value = |key| line.strip_prefix(key).map(|value: &str| value.trim_matches('"'));
        name = value("name = ").unwrap_or(name);
        if let Some(version) = value("version = ")
            && ["seqrs", "burn", "candle-nn", "tract-onnx", "rust-lstm"].contains(&name)
        {
            versions.insert(name.to_string(), version.to_string());
        }
    }
    versions
}

/// Prints a row for each library at each case.
fn measure(options: &Options) -> Result<bool, Failure> {
    let [threads] = options.threads[..] else { return Err("one number of threads".into()) };
    let mut right = true;
    for case in &options.cases {
        eprintln!("{}, threads {threads}", case.name());
        let (libraries, mut contenders, differences) = contenders(case, &mut right)?;
        if libraries.is_empty() {
            continue;
        }
        let turns = match take_turns(&mut contenders, options.seconds) {
            Ok(turns) => turns,
            Err((k, failure)) => {
                eprintln!("  {}: {failure}; the case is not timed", libraries[k].name);
                right = false;
                continue;
            }
        };
        for (k, library) in libraries.iter().enumerate() {
            let ours = libraries.iter().zip(&turns).filter(|(library, _)| library.goal.is_none());
            let ratios = |theirs: &[f64], ours: &[f64]| {
                let ratios: Vec<_> = theirs.iter().zip(ours).map(|(a, b)| a / b).collect();
                median(&ratios)
            };
            let row = Row {
                case: case.name(),
                threads,
                library: library.name.to_string(),
                seconds: median(&turns[k]),
                spread: (
                    turns[k].iter().copied().fold(f64::INFINITY, f64::min),
                    turns[k].iter().copied().fold(0.0, f64::max),
                ),
                difference: differences[k],
                times: ours
                    .map(|(ours, turn)| (ours.name.to_string(), ratios(&turns[k], turn)))
                    .collect(),
            };
            println!("{}", serde_json::to_string(&row)?);
            io::stdout().flush()?;
        }
    }
    Ok(right)
}

/// Libraries, what they have prepared, and how far their results are from the reference.
type Contenders = (Vec<&'static Library>, Vec<Box<dyn Contender>>, Vec<f64>);

/// The libraries of the case's device that have the case, after their results have been compared.
fn contenders(case: &Case, right: &mut bool) -> Result<Contenders, Failure> {
    let problem = Problem::new(*case)?;
    let mut results: Vec<(&str, Results)> = Vec::new();
    let mut all: Contenders = Default::default();
    for library in LIBRARIES {
        let is_timed = library.device == case.device;
        if !is_timed && library.name != REFERENCE {
            continue;
        }
        let found = prepared(library, &problem).and_then(|prepared| {
            let Some((contender, own)) = prepared else { return Ok(None) };
            let difference = difference(library, &own, &results)?;
            Ok(Some((contender, own, difference)))
        });
        match found {
            Ok(None) => {}
            Ok(Some((contender, own, difference))) => {
                if is_timed {
                    all.0.push(library);
                    all.1.push(contender);
                    all.2.push(difference);
                }
                results.push((library.name, own));
            }
            Err(failure) => {
                eprintln!("  {}: {failure}; it is not timed", library.name);
                *right = false;
            }
        }
    }
    Ok(all)
}

/// A library that has computed a case once, and its results.
type Prepared = (Box<dyn Contender>, Results);

/// Has a library compute the case once. Some libraries panic where a
/// device is not what they expect; that is a failure like others.
fn prepared(library: &Library, problem: &Problem) -> Result<Option<Prepared>, Failure> {
    let attempt = || {
        let Some(mut contender) = (library.build)(problem)? else { return Ok(None) };
        contender.run()?;
        let results = contender.results()?;
        Ok(Some((contender, results)))
    };
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("it panicked: {}", words.unwrap_or("no message")).into())
    })
}

/// How far the results of a library are from those that they are compared with.
fn difference(
    library: &Library,
    own: &Results,
    results: &[(&str, Results)],
) -> Result<f64, Failure> {
    if library.name == REFERENCE {
        return Ok(0.0);
    }
    let reference = results.iter().find(|(name, _)| *name == library.reference);
    let (_, reference) = reference.ok_or("what it is compared with failed")?;
    compared(own, reference, library.tolerance)
}
