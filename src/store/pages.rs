//! Verifies the checksums of redb's pages, which redb itself looks at only during a repair.
//!
//! A page of redb's own bookkeeping that is damaged can make redb abort the process: it panics while it frees a page
//! that is not there, and once more while it unwinds. So the bookkeeping is verified at each opening, before redb writes
//! anything; it is small, whatever the size of the store. `nightmail store check` verifies all pages.
//!
//! Reads redb's file format 3 as its `docs/design.md` describes it, and knows nothing of what the tables hold.

use xxhash_rust::xxh3::xxh3_128;

use super::Disk;

/// Which pages are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The list of tables, and redb's own tables: the free pages, and the pages to be freed next.
    Bookkeeping,
    /// The tables' rows too: reads the whole file.
    All,
}

/// Verifies the pages of the last commit. Says nothing about a file that redb will repair, since redb then verifies all
/// of them, and nothing about one that is no redb file.
///
/// # Errors
/// What is wrong with the first page that is not as it was written, or why it cannot be read.
pub(super) fn verify(disk: &dyn Disk, scope: Scope) -> Result<(), String> {
    let bytes = disk.bytes().map_err(|error| error.to_string())?;
    let mut header = [0; HEADER_BYTES];
    if bytes < HEADER_BYTES as u64 {
        return Ok(());
    }
    disk.read(0, &mut header).map_err(|error| error.to_string())?;
    let Some(geometry) = Geometry::read(&header) else { return Ok(()) };
    let flags = header[MAGIC.len()];
    if flags & RECOVERY_REQUIRED != 0 && flags & TWO_PHASE_COMMIT == 0 {
        return Ok(());
    }
    let slot = &header[SLOTS[usize::from(flags & SECOND_IS_PRIMARY)]..][..SLOT_BYTES];
    if slot[0] != FILE_FORMAT {
        return Ok(());
    }
    let (fields, checksum) = slot.split_at(SLOT_BYTES - 16);
    if xxh3_128(fields).to_le_bytes() != checksum {
        return Err("its header does not have the checksum that it was written with".into());
    }
    let mut walk = Walk { disk, bytes, geometry, pages_left: bytes / geometry.page_bytes };
    walk.tables(root(slot[2], &slot[40..64]), Scope::All)?;
    walk.tables(root(slot[1], &slot[8..32]), scope)
}

const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// The bits of the byte after the magic.
const SECOND_IS_PRIMARY: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE_COMMIT: u8 = 4;
/// Where the two commit slots begin, their length, and that of the whole header.
const SLOTS: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const HEADER_BYTES: usize = 320;
/// The version in a commit slot whose layout is known here.
const FILE_FORMAT: u8 = 3;
/// The first byte of a page.
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// A tree that is deeper than this is none.
const DEPTH_MAX: usize = 128;
/// What is wrong when a page leads nowhere, or in a circle.
const NO_TREE: &str = "its pages form no tree";
/// The first byte of a table's definition whose rows are a plain tree.
const PLAIN_TABLE: u8 = 3;

/// Where pages stand in the file.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    page_bytes: u64,
    region_header_bytes: u64,
    region_bytes: u64,
}

impl Geometry {
    /// `None` for a file that is not redb's.
    fn read(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let [page_bytes, header_pages, data_pages] = [12, 16, 20].map(|at| u64::from(u32_at(header, at).unwrap_or(0)));
        let is_known = header.starts_with(MAGIC) && page_bytes.is_power_of_two() && data_pages > 0;
        is_known.then(|| Self {
            page_bytes,
            region_header_bytes: header_pages * page_bytes,
            region_bytes: (header_pages + data_pages) * page_bytes,
        })
    }

    /// The page's offset and length. Its number holds, from the lowest bit on, its index of 20 bits, its region of 20,
    /// and in the highest 5 its order: the page has 2^order times the usual length.
    fn place(&self, page: u64) -> Option<(u64, u64)> {
        let (order, region) = (page >> 59, (page >> 20) & 0xf_ffff);
        let index = page & (0xf_ffff >> order);
        let length = self.page_bytes.checked_shl(u32::try_from(order).ok()?)?;
        let in_region = index.checked_mul(length)?.checked_add(self.region_header_bytes)?;
        let region = region.checked_mul(self.region_bytes)?;
        Some((self.page_bytes.checked_add(region)?.checked_add(in_region)?, length))
    }
}

/// The root of a tree, or a child of a branch.
#[derive(Clone, Copy, Debug)]
struct Child {
    page: u64,
    checksum: [u8; 16],
}

/// The root of a tree: page number and checksum; `None` when the tree is empty.
fn root(is_there: u8, bytes: &[u8]) -> Option<Child> {
    let (page, rest) = bytes.split_first_chunk::<8>()?;
    let checksum = *rest.first_chunk::<16>()?;
    (is_there != 0).then(|| Child { page: u64::from_le_bytes(*page), checksum })
}

/// The lengths of a tree's keys and values, where they are fixed.
#[derive(Clone, Copy, Debug, Default)]
struct Widths {
    key: Option<usize>,
    value: Option<usize>,
}

struct Walk<'d> {
    disk: &'d dyn Disk,
    bytes: u64,
    geometry: Geometry,
    /// Each page belongs to one tree, so a walk over more pages than the file has goes in a circle.
    pages_left: u64,
}

impl Walk<'_> {
    /// Verifies a tree of tables, and with [`Scope::All`] the trees of its tables.
    fn tables(&mut self, root: Option<Child>, scope: Scope) -> Result<(), String> {
        let mut tables = Vec::new();
        self.tree(root, Widths::default(), &mut |definition| tables.push(table(definition)))?;
        if scope == Scope::Bookkeeping {
            return Ok(());
        }
        for (root, widths) in tables.into_iter().flatten() {
            self.tree(root, widths, &mut |_| {})?;
        }
        Ok(())
    }

    /// Verifies each page of a tree and calls `visit` with each value.
    fn tree(&mut self, root: Option<Child>, widths: Widths, visit: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let mut waiting: Vec<(Child, usize)> = root.into_iter().map(|root| (root, 1)).collect();
        while let Some((child, depth)) = waiting.pop() {
            let page = self.page(child.page)?;
            let read = Page::read(&page, widths).filter(|read| xxh3_128(read.bytes).to_le_bytes() == child.checksum);
            let Some(read) = read else {
                return Err(format!("page {:#x} does not have the checksum that it was written with", child.page));
            };
            match read.kind {
                Kind::Leaf(pairs) => {
                    (0..pairs).filter_map(|nth| value(read.bytes, nth, pairs, widths)).for_each(&mut *visit)
                }
                Kind::Branch(_) if depth == DEPTH_MAX => return Err(NO_TREE.into()),
                Kind::Branch(children) => {
                    for nth in 0..children {
                        waiting.push((read.child(nth, children).ok_or(NO_TREE)?, depth + 1));
                    }
                }
            }
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> Result<Vec<u8>, String> {
        let outside = || format!("page {number:#x} lies outside the file");
        let (at, length) = self.geometry.place(number).ok_or_else(outside)?;
        if at.checked_add(length).is_none_or(|end| end > self.bytes) {
            return Err(outside());
        }
        self.pages_left = self.pages_left.checked_sub(1).ok_or(NO_TREE)?;
        let mut page = vec![0; usize::try_from(length).map_err(|_| outside())?];
        self.disk.read(at, &mut page).map_err(|error| error.to_string())?;
        Ok(page)
    }
}

/// A table's root and widths, from its definition: type, row count (8), whether there is a root (1), the root (32), and
/// twice whether keys or values have a fixed length (1) and which (4).
fn table(definition: &[u8]) -> Option<(Option<Child>, Widths)> {
    let root = root(*definition.get(9)?, definition.get(10..)?);
    let width = |at: usize| match definition.get(at) {
        Some(0) | None => None,
        Some(_) => u32_at(definition, at + 1).map(|width| width as usize),
    };
    (definition[0] == PLAIN_TABLE).then(|| (root, Widths { key: width(42), value: width(47) }))
}

/// A page whose extent is plausible.
struct Page<'p> {
    /// The part that its checksum covers.
    bytes: &'p [u8],
    kind: Kind,
}

enum Kind {
    /// With that many pairs.
    Leaf(usize),
    /// With that many children.
    Branch(usize),
}

impl<'p> Page<'p> {
    fn read(page: &'p [u8], widths: Widths) -> Option<Self> {
        let count = usize::from(u16::from_le_bytes(*page.get(2..4)?.first_chunk()?));
        let last = count.checked_sub(1)?;
        let (end, kind) = match page[0] {
            LEAF => (value_end(page, last, count, widths)?, Kind::Leaf(count)),
            BRANCH => (branch_end(page, last, count, widths)?, Kind::Branch(count + 1)),
            _ => return None,
        };
        Some(Self { bytes: page.get(..end)?, kind })
    }

    /// The child of a branch: after 8 bytes come all checksums, then all page numbers.
    fn child(&self, nth: usize, children: usize) -> Option<Child> {
        let checksum = *self.bytes.get(8 + 16 * nth..)?.first_chunk()?;
        let page = self.bytes.get(8 + 16 * children + 8 * nth..)?.first_chunk()?;
        Some(Child { page: u64::from_le_bytes(*page), checksum })
    }
}

/// Where the last key of a branch ends.
fn branch_end(page: &[u8], last: usize, keys: usize, widths: Widths) -> Option<usize> {
    let ends = 8 + 24 * (keys + 1);
    match widths.key {
        Some(width) => Some(ends + width * keys),
        None => u32_at(page, ends + 4 * last).map(|end| end as usize),
    }
}

/// Where a leaf's nth key ends: after 4 bytes come the ends of all keys, those of all values, the keys, the values; ends
/// are there only where lengths are not fixed.
fn key_end(page: &[u8], nth: usize, pairs: usize, widths: Widths) -> Option<usize> {
    match widths.key {
        Some(width) => {
            let start = if widths.value.is_none() { 4 + 4 * pairs } else { 4 };
            Some(start + width * (nth + 1))
        }
        None => u32_at(page, 4 + 4 * nth).map(|end| end as usize),
    }
}

fn value_end(page: &[u8], nth: usize, pairs: usize, widths: Widths) -> Option<usize> {
    match widths.value {
        Some(width) => Some(key_end(page, pairs - 1, pairs, widths)? + width * (nth + 1)),
        None => {
            let ends = if widths.key.is_none() { 4 + 4 * pairs } else { 4 };
            u32_at(page, ends + 4 * nth).map(|end| end as usize)
        }
    }
}

fn value(page: &[u8], nth: usize, pairs: usize, widths: Widths) -> Option<&[u8]> {
    let start = match nth.checked_sub(1) {
        Some(before) => value_end(page, before, pairs, widths)?,
        None => key_end(page, pairs - 1, pairs, widths)?,
    };
    page.get(start..value_end(page, nth, pairs, widths)?)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use redb::{Database, TableDefinition};

    use super::super::disk::FileDisk;
    use super::*;

    #[test]
    fn a_flipped_bit_is_found_in_whatever_leaf_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let value = |row: u64| format!("<row {row}>{}", "x".repeat(500)).into_bytes();
        let db = Database::create(file.path()).unwrap();
        let transaction = db.begin_write().unwrap();
        let mut table = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new("rows")).unwrap();
        for row in 0..5000_u64 {
            table.insert(row.to_be_bytes().as_slice(), value(row).as_slice()).unwrap();
        }
        drop(table);
        transaction.commit().unwrap();
        drop(db);
        let disk = FileDisk(file.reopen().unwrap());
        assert_eq!(verify(&disk, Scope::All), Ok(()));
        let bytes = std::fs::read(file.path()).unwrap();
        for row in [0, 1, 1234, 2500, 4998, 4999] {
            let marker = format!("<row {row}>").into_bytes();
            let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap() as u64;
            disk.write(at, b">").unwrap();
            assert!(verify(&disk, Scope::All).unwrap_err().contains("checksum"), "row {row}");
            disk.write(at, b"<").unwrap();
        }
        assert_eq!(verify(&disk, Scope::All), Ok(()));
    }
}
