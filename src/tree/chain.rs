//! A way down a tree, level by level, that can be gone back: however deep, with few open descriptors and no recursion.

use nix::errno::Errno;

use super::Dir;

/// How many directories above the current one stay open; the others are opened again through `..`.
const OPEN: usize = 8;

struct Level {
    id: (u64, u64),
    dir: Option<Dir>,
}

/// The current directory of a walk and the way back to its root. It goes through many hands, by one word.
pub struct Chain(Box<Way>);

struct Way {
    here: Dir,
    id: (u64, u64),
    above: Vec<Level>,
}

impl Chain {
    /// Starts at `root`; the chain never leaves it upwards.
    pub fn new(root: Dir) -> nix::Result<Self> {
        let id = root.stat()?.id;
        Ok(Self(Box::new(Way { here: root, id, above: Vec::new() })))
    }

    /// Starts at a second handle of `root`.
    pub fn of(root: &Dir) -> nix::Result<Self> {
        Self::new(root.again()?)
    }

    /// The current directory.
    pub fn here(&self) -> &Dir {
        &self.0.here
    }

    /// Device and inode of the current directory.
    pub fn id(&self) -> (u64, u64) {
        self.0.id
    }

    /// How many levels below the root.
    pub fn depth(&self) -> usize {
        self.0.above.len()
    }

    /// Goes down into `child`, a directory of the current one.
    pub fn down(&mut self, child: Dir) -> nix::Result<()> {
        let id = child.stat()?.id;
        self.down_to(child, id);
        Ok(())
    }

    /// The same where device and inode of `child` are known.
    pub fn down_to(&mut self, child: Dir, id: (u64, u64)) {
        let way = &mut *self.0;
        let dir = std::mem::replace(&mut way.here, child);
        way.above.push(Level { id: way.id, dir: Some(dir) });
        way.id = id;
        if let Some(level) = way.above.len().checked_sub(OPEN + 1).and_then(|n| way.above.get_mut(n)) {
            level.dir = None;
        }
    }

    /// Goes one level up; false at the root. ESTALE when the tree was rearranged under the walk.
    pub fn up(&mut self) -> nix::Result<bool> {
        let way = &mut *self.0;
        let Some(level) = way.above.last_mut() else { return Ok(false) };
        let dir = match level.dir.take() {
            Some(dir) => dir,
            None => {
                let dir = way.here.parent()?;
                if dir.stat()?.id != level.id {
                    return Err(Errno::ESTALE);
                }
                dir
            }
        };
        way.id = level.id;
        way.here = dir;
        way.above.pop();
        Ok(true)
    }

    /// The current directory alone.
    pub fn into_here(self) -> Dir {
        self.0.here
    }
}
