//! One operation on copies of its weights or caches that take turns.

use super::{Graph, Session, Tensor};
use anyhow::Result;

/// A session whose graphs are the same operation on one copy each, with one result.
pub struct Rotation<'t> {
    session: Session<'t>,
    graphs: Vec<Graph>,
    result: Tensor,
    turn: usize,
}

impl<'t> Rotation<'t> {
    /// Of at least one graph.
    pub fn new(session: Session<'t>, graphs: Vec<Graph>, result: Tensor) -> Rotation<'t> {
        Rotation { session, graphs, result, turn: 0 }
    }

    /// One call, with the next copy.
    pub fn turn(&mut self) {
        self.turn += 1;
        let graph = self.graphs[self.turn % self.graphs.len()];
        self.session.compute(graph).expect("a valid graph");
    }

    /// Computes once and copies the result of `len` values out.
    pub fn result(&mut self, len: usize) -> Result<Vec<f32>> {
        self.turn();
        let mut values = vec![0.0; len];
        self.session.read(self.result, &mut values)?;
        Ok(values)
    }
}
