//! Threads that are gone when their owner is.

/// Threads of a pool, joined when this is dropped.
///
/// rayon's own pool only tells its threads to end: they would still run when a program that destroyed its context
/// unloads the library, and count as lost to a memory checker.
pub(super) struct Threads {
    /// `None` while this is dropped.
    pool: Option<rayon::ThreadPool>,
    handles: Vec<std::thread::JoinHandle<()>>,
    /// The process that has the threads: in a child that it forks, there is nobody to wait for.
    process: u32,
}

impl Threads {
    /// Starts `n` threads, named `kvern-1` and so on.
    pub fn start(n: usize) -> Result<Threads, rayon::ThreadPoolBuildError> {
        let mut handles = Vec::with_capacity(n);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .spawn_handler(|thread| {
                let named = std::thread::Builder::new().name(format!("kvern-{}", thread.index() + 1));
                handles.push(named.spawn(|| thread.run())?);
                Ok(())
            })
            .build()?;
        Ok(Threads { pool: Some(pool), handles, process: std::process::id() })
    }

    /// Has each thread call `body` once.
    pub fn spawn_broadcast(&self, body: impl Fn(rayon::BroadcastContext<'_>) + Send + Sync + 'static) {
        if let Some(pool) = &self.pool {
            pool.spawn_broadcast(body);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.pool.take());
        if self.process == std::process::id() {
            // A body that panicked has told its caller already.
            self.handles.drain(..).for_each(|handle| drop(handle.join()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Threads;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Counts when the thread's own memory is released: after its last body, before its end.
    struct AtExit(Arc<AtomicUsize>);

    impl Drop for AtExit {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn no_thread_is_left_after_the_drop() {
        thread_local!(static MARK: std::cell::RefCell<Option<AtExit>> = const { std::cell::RefCell::new(None) });
        let ended = Arc::new(AtomicUsize::new(0));
        let threads = Threads::start(3).unwrap();
        let (marks, started) = (Arc::clone(&ended), Arc::new(std::sync::Barrier::new(4)));
        let all = Arc::clone(&started);
        threads.spawn_broadcast(move |_| {
            MARK.with(|mark| *mark.borrow_mut() = Some(AtExit(Arc::clone(&marks))));
            all.wait();
        });
        started.wait();
        drop(threads);
        assert_eq!(ended.load(SeqCst), 3);
    }
}
