//! One tensor of a file.

use super::header::Info;
use super::tensor_type::TensorType;
use crate::blob::wrong;
use crate::buffer::vector_of;
use crate::error::{Result, equal};
use crate::names::Shown;
use crate::quant::{WeightFormat, dequantize};

/// A tensor of a [`Gguf`](super::Gguf), whose data lie in the file.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    file: &'a [u8],
    info: &'a Info,
}

impl<'a> Tensor<'a> {
    pub(super) fn new(file: &'a [u8], info: &'a Info) -> Tensor<'a> {
        Tensor { file, info }
    }

    /// The name, such as `blk.0.attn_q.weight`.
    pub fn name(&self) -> &'a str {
        self.info.name(self.file)
    }

    /// The shape in the order of GGUF: k first, the elements of a row that lie side by side. A weight matrix
    /// of n output and k input features is `[k, n]`, those of experts are `[k, n, experts]`; a vector is
    /// `[k]`. At most 4 dimensions, of which any may be 0; without one the tensor is a number.
    pub fn shape(&self) -> &'a [usize] {
        self.info.shape()
    }

    /// Elements of a row: the first dimension.
    pub fn k(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    /// Rows of a matrix: the second dimension.
    pub fn n(&self) -> usize {
        self.shape().get(1).copied().unwrap_or(1)
    }

    /// Matrices: the product of the dimensions behind the second one.
    pub fn experts(&self) -> usize {
        self.shape().iter().skip(2).product()
    }

    /// Elements: the product of all dimensions.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type, which kvern need not know.
    pub fn kind(&self) -> TensorType {
        self.info.kind
    }

    /// The format.
    ///
    /// **Errors**: `Blob` for a type that kvern does not compute with, which names its id and, where it has
    /// one, its name in ggml.
    pub fn format(&self) -> Result<WeightFormat> {
        self.kind().format_of(self.name())
    }

    /// The data, as they lie in the file.
    ///
    /// **Errors**: `Blob` for a type of unknown size.
    pub fn bytes(&self) -> Result<&'a [u8]> {
        match &self.info.data {
            Some(place) => Ok(&self.file[place.clone()]),
            None => wrong("type of a tensor", self.kind().shown(self.name()), "a type of known size"),
        }
    }

    /// Matrix `expert` of [`Tensor::experts`]: `(format, n, k, blocks)`.
    ///
    /// **Errors**: `Blob` for a type that kvern does not compute with, `Shape` for a matrix that is not
    /// there.
    pub fn matrix(&self, expert: usize) -> Result<(WeightFormat, usize, usize, &'a [u8])> {
        let (format, bytes) = (self.format()?, self.bytes()?);
        let (n, k, experts) = (self.n(), self.k(), self.experts());
        if expert >= experts {
            let relation = "must be below the matrices of the tensor =";
            return Err(crate::Error::Shape { what: "expert", got: expert, relation, want: experts });
        }
        let len = bytes.len() / experts;
        Ok((format, n, k, &bytes[expert * len..(expert + 1) * len]))
    }

    /// Writes all elements in f32, as [`dequantize`] gives them: norms, biases, rows to look at.
    ///
    /// **Shapes**: `out`: the elements, k together. **Errors**: `Blob` for a type that kvern does not compute
    /// with, `Shape`; nothing is written then. **Cost**: one pass; allocates nothing.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        let format = self.format()?;
        equal("out.len", out.len(), "must equal the elements of the tensor =", self.len())?;
        dequantize(format, self.bytes()?, out)
    }

    /// [`Tensor::read_f32`] into memory of its own.
    ///
    /// **Errors**: as [`Tensor::read_f32`]; `Resource`.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.format()?;
        let mut out = vector_of(0.0, self.len())?;
        self.read_f32(&mut out)?;
        Ok(out)
    }

    /// The tensor as an error names it.
    pub(super) fn shown(&self) -> Shown<'a> {
        Shown(self.name())
    }
}
