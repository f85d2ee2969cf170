//! The rooms through their public doors: a real store in a temporary directory, time by a manual clock.

#[cfg(test)]
mod format;
#[cfg(test)]
mod model;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
