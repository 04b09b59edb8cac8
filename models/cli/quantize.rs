//! `kvern-models quantize`: the weights of a GGUF file in another format.
//!
//! **Cost**: memory for the files that are read, and 16 MiB. They are read and not mapped: a mapping takes an
//! unsafe promise that nobody writes to them, which a command cannot give for its user's files. The new file
//! is written beside its name and renamed when it is whole; whatever fails before leaves no new file, and an
//! old one of this name as it was.

use crate::arguments::Job;
use crate::convert::convert;
use crate::failure::{Failure, Result};
use crate::file_type;
use crate::plan::{self, Goal, Step};
use crate::report::{line, say};
use kvern::gguf::{Gguf, GgufWriter, Tensor, TensorType, Value};
use kvern::quant::WeightFormat;
use kvern::{Context, ContextOptions};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The most threads of a context.
const MAX_THREADS: usize = 256;

/// `general.quantization_version`: the layout of ggml's blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// A tensor, and the plan for it.
struct Planned<'a> {
    tensor: Tensor<'a>,
    step: Step,
}

/// Writes `job.output`: the tensors of `job.input` in their order, weights in `job.format`.
///
/// **Errors**: `SameFile`; `File` for a file that cannot be read or written, or that is damaged; `Tensor` for
/// one of unknown size, a name that is too long, and weights that the format cannot hold.
pub fn run(job: &Job) -> Result<()> {
    differs(job, &job.input)?;
    let file = Gguf::load(&job.input).map_err(|source| in_file(&job.input, source))?;
    other_parts(&job.input, file.part_count()).iter().try_for_each(|part| differs(job, part))?;
    let goal = Goal { format: job.format, keep_output: job.keep_output };
    let tensors: Vec<_> = file.tensors().map(|tensor| planned(tensor, goal)).collect();
    let mut writer = GgufWriter::new();
    metadata(&file, job.format, &mut writer).map_err(|source| in_file(&job.input, source))?;
    for Planned { tensor, step } in &tensors {
        let kind = step.to().map_or(tensor.kind(), TensorType::from);
        let added = writer.tensor(tensor.name(), kind, tensor.shape());
        added.map_err(|source| in_tensor(job, tensor, source))?;
    }
    save(&writer, &tensors, job, goal)
}

fn planned(tensor: Tensor<'_>, goal: Goal) -> Planned<'_> {
    let step = plan::step(tensor.name(), tensor.shape(), tensor.kind().format(), goal);
    Planned { tensor, step }
}

/// Writes the data of all tensors.
fn save(writer: &GgufWriter, tensors: &[Planned<'_>], job: &Job, goal: Goal) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    let ctx = Context::new(&ContextOptions::default().threads(threads)).map_err(Failure::Threads)?;
    let (mut read, mut written) = (0, 0);
    let mut refused = None;
    let saved = writer.save(&job.output, |i, data| {
        let Planned { tensor, step } = &tensors[i];
        let blocks = tensor.bytes()?;
        let done = match (tensor.kind().format(), step.to()) {
            (Some(from), Some(to)) => convert(&ctx, (from, blocks), to, |out| data.write(out)),
            _ => data.write(blocks),
        };
        if done.is_err() {
            refused = Some(i);
        } else {
            (read, written) = (read + blocks.len(), written + data.len());
            say(&mut io::stdout(), format_args!("{}", line(tensor, *step, goal, data.len())));
        }
        done
    });
    match (saved, refused) {
        (Ok(()), _) => {
            let (path, count) = (job.output.display(), tensors.len());
            say(&mut io::stdout(), format_args!("{path}: {count} tensors, {read} -> {written} bytes"));
            Ok(())
        }
        // A file that cannot be written is no fault of the tensor that was to be written.
        (Err(source @ kvern::Error::Io { .. }), _) | (Err(source), None) => Err(in_file(&job.output, source)),
        (Err(source), Some(i)) => Err(in_tensor(job, &tensors[i].tensor, source)),
    }
}

/// Copies the keys, without those of a split file, and with those that say how weights are quantised.
fn metadata(file: &Gguf, format: WeightFormat, writer: &mut GgufWriter) -> kvern::Result<()> {
    let own = [
        ("general.file_type", file_type::of(format)),
        ("general.quantization_version", Some(QUANTIZATION_VERSION)),
    ];
    for (key, value) in file.keys().filter(|(key, _)| !key.starts_with("split.")) {
        match own.iter().find(|own| own.0 == key) {
            // In their place, so that the order of keys stays.
            Some((_, Some(number))) => writer.set(key, Value::U32(*number))?,
            Some((_, None)) => {}
            None => writer.set(key, value)?,
        }
    }
    for (key, number) in own {
        if let Some(number) = number.filter(|_| file.get(key).is_none()) {
            writer.set(key, Value::U32(number))?;
        }
    }
    Ok(())
}

/// Refuses to write the file `read`, by whatever name or link.
fn differs(job: &Job, read: &Path) -> Result<()> {
    match (fs::canonicalize(&job.output), fs::canonicalize(read)) {
        (Ok(output), Ok(input)) if output == input => {
            Err(Failure::SameFile { output: job.output.clone(), input: read.to_owned() })
        }
        // A file that is not there is no other one; a missing input is refused where it is opened.
        _ => Ok(()),
    }
}

/// The later parts of a split file, `NAME-00002-of-00003.gguf` and so on beside the first one.
fn other_parts(first: &Path, count: usize) -> Vec<PathBuf> {
    let name = first.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(name) = name.strip_suffix(&format!("-00001-of-{count:05}.gguf")) else { return Vec::new() };
    (2..=count).map(|i| first.with_file_name(format!("{name}-{i:05}-of-{count:05}.gguf"))).collect()
}

fn in_file(path: &Path, source: kvern::Error) -> Failure {
    Failure::File { path: path.into(), source }
}

fn in_tensor(job: &Job, tensor: &Tensor<'_>, source: kvern::Error) -> Failure {
    Failure::Tensor { path: job.input.clone(), name: tensor.name().into(), source }
}
