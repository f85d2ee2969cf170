//! The promises of the queue module, one test each.

mod books;
mod dead;
mod fifo;
mod groups;
mod life;
mod limits;
mod redrive;
mod settle;
mod unique;
