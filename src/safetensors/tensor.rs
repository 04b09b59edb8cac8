//! One tensor of a file.

use super::element_type::ElementType;
use super::header::Info;
use crate::blob::wrong;
use crate::buffer::vector_of;
use crate::error::{Result, equal};
use crate::names::Shown;
use crate::quant::{WeightFormat, dequantize};

/// A tensor of a [`SafeTensors`](super::SafeTensors), whose elements lie in the file.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    file: &'a [u8],
    info: &'a Info,
}

impl<'a> Tensor<'a> {
    pub(super) fn new(file: &'a [u8], info: &'a Info) -> Tensor<'a> {
        Tensor { file, info }
    }

    /// The name, such as `model.norm.weight`.
    pub fn name(&self) -> &'a str {
        &self.info.name
    }

    /// The shape, the elements that lie side by side last: a weight matrix is (n, k).
    pub fn shape(&self) -> &'a [usize] {
        &self.info.shape
    }

    /// Elements: the product of all dimensions.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn kind(&self) -> ElementType {
        self.info.kind
    }

    /// The elements as they lie in the file: little-endian, of any alignment.
    pub fn bytes(&self) -> &'a [u8] {
        &self.file[self.info.data.clone()]
    }

    /// The format of weights with such elements.
    ///
    /// **Errors**: `Blob` for another type than F32, F16 and BF16.
    pub fn format(&self) -> Result<WeightFormat> {
        let got = format_args!("{} of {}", self.kind(), Shown(self.name()));
        self.kind().format().map_or_else(|| wrong("type of a tensor", got, "F32, F16 or BF16"), Ok)
    }

    /// Writes all elements in f32, exactly.
    ///
    /// **Shapes**: `out`: the elements. **Errors**: `Blob` for another type than F32, F16 and BF16, `Shape`;
    /// nothing is written then. **Cost**: one pass; allocates nothing.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        let format = self.format()?;
        equal("out.len", out.len(), "must equal the elements of the tensor =", self.len())?;
        dequantize(format, self.bytes(), out)
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
}
