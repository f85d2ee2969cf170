//! The promises of the queue module, one test each.

mod attributes;
mod books;
mod dead;
mod fifo;
mod groups;
mod life;
mod limits;
mod polls;
mod purge;
mod redrive;
mod settle;
mod unique;
