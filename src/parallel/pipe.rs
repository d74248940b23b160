//! Items that one thread makes and another consumes.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use super::{PULSE, enter, inherited, interrupted, is_cancelled, wait_while};
use crate::error::Result;

/// Passes items to `consume` in a thread of its own, a few at a time, and gives its answer; without
/// a thread to be had, in this one. `consume` gets [`None`] once all items were made; a producer
/// that panics or is told to stop ends the items without it.
pub fn pipe<I: Send, T: Send>(
    queued: usize,
    items: impl Iterator<Item = I>,
    consume: impl FnOnce(&mut dyn Items<Option<I>>) -> Result<T> + Send,
) -> Result<T> {
    let consume = Mutex::new(Some(consume));
    let ended = AtomicBool::new(false);
    let mut items = items.fuse();
    let piped = thread::scope(|scope| {
        let (sender, receiver) = sync_channel(queued);
        let (inherited, caller, consume) = (inherited(), thread::current(), &consume);
        let ended = &ended;
        let spawned = thread::Builder::new().name("feast-vector write".to_owned()).spawn_scoped(
            scope,
            move || {
                let _restore = enter(inherited);
                let mut received = Received { receiver, caller, ended };
                consume.lock().take().map(|consume| consume(&mut received))
            },
        );
        let consumer = spawned.ok()?;
        for item in items.by_ref().map(Some).chain(std::iter::once_with(|| None)) {
            if is_cancelled() || !send(&sender, item) {
                break;
            }
        }
        drop(sender);
        wait_while(|| !ended.load(SeqCst));
        Some(consumer.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    if let Some(Some(answer)) = piped {
        return answer;
    }
    let Some(consume) = consume.into_inner() else {
        return Err(interrupted());
    };
    consume(&mut Made(items.map(Some).chain(std::iter::once(None))))
}

/// Waits for room; false if nobody takes items any more, or the work was told to stop.
fn send<I>(sender: &SyncSender<I>, mut item: I) -> bool {
    loop {
        match sender.try_send(item) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if !is_cancelled() => item = back,
            Err(_) => return false,
        }
        thread::park_timeout(PULSE);
    }
}

/// The items of a pipe, as they come.
pub trait Items<I>: Iterator<Item = I> {
    /// The next item, or [`Late`] if it does not come in that time.
    fn next_within(&mut self, patience: Duration) -> std::result::Result<Option<I>, Late>;
}

/// Says that an item is still to come.
#[derive(Debug, Clone, Copy)]
pub struct Late;

/// Items that are made as they are asked for, which nothing can be done about.
struct Made<M>(M);

impl<M: Iterator> Iterator for Made<M> {
    type Item = M::Item;

    fn next(&mut self) -> Option<M::Item> {
        self.0.next()
    }
}

impl<M: Iterator> Items<M::Item> for Made<M> {
    fn next_within(&mut self, _: Duration) -> std::result::Result<Option<M::Item>, Late> {
        Ok(self.0.next())
    }
}

impl<I> Items<I> for Received<'_, I> {
    fn next_within(&mut self, patience: Duration) -> std::result::Result<Option<I>, Late> {
        let item = self.receiver.recv_timeout(patience);
        self.caller.unpark();
        match item {
            Ok(item) => Ok(Some(item)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Late),
        }
    }
}

/// The items of a pipe; wakes the producer, who may wait for room or for the end.
struct Received<'a, I> {
    receiver: Receiver<I>,
    caller: Thread,
    ended: &'a AtomicBool,
}

impl<I> Iterator for Received<'_, I> {
    type Item = I;

    fn next(&mut self) -> Option<I> {
        let item = self.receiver.recv().ok();
        self.caller.unpark();
        item
    }
}

impl<I> Drop for Received<'_, I> {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        self.caller.unpark();
    }
}
