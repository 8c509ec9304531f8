//! A policy as an eBPF program for cgroups v2, assembled by hand (`Documentation/bpf/standardization/instruction-set.rst`).
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx` in `r1` for each open(2) and mknod(2) of a device, and reads 1
//! (allow) or 0 (EPERM) from `r0`. It asks the rules from the last to the first, because later ones win:
//!
//! ```text
//! prologue        r2 = kind, r3 = accesses asked for, r4 = major, r5 = minor
//! character       rules of one major stand together: another major?  → next major
//!                   another minor?  → next rule
//!                   allow: take the rule's accesses out of r3; none left?  → allow
//!                   deny:  does r3 hold one of the rule's accesses?        → deny
//! block           likewise
//! the end         the verdict where no rule spoke, then the other one
//! ```
//!
//! Loading takes the kernel a few microseconds an instruction, most of it in the verifier, which walks every path. Hence
//! one test a kind and a major, and no path that goes through tests whose outcome it knows already.

use std::fmt;

use anyhow::Result;

use super::policy::{Access, Kind, Policy, Rule, Verdict};
use crate::error::Failure;

/// A register, `r0` to `r10`.
type Register = u8;

const RESULT: Register = 0;
const CONTEXT: Register = 1;
const KIND: Register = 2;
const ACCESS: Register = 3;
const MAJOR: Register = 4;
const MINOR: Register = 5;

/// `BPF_DEVCG_DEV_CHAR`; there is one other kind.
const CHARACTER: i32 = 2;
/// Offsets in `struct bpf_cgroup_dev_ctx`.
const ACCESS_TYPE_FIELD: i16 = 0;
const MAJOR_FIELD: i16 = 4;
const MINOR_FIELD: i16 = 8;

/// The instructions in use. Jumps name their target by its place in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instruction {
    /// 32 bits from the context.
    Load(Register, i16),
    Copy(Register, Register),
    And(Register, i32),
    ShiftRight(Register, i32),
    Set(Register, i32),
    Jump(When, usize),
    Exit,
}

/// When a jump is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Equal(Register, i32),
    NotEqual(Register, i32),
    /// One of these bits is set.
    AnyBit(Register, i32),
}

/// A whole program; shows itself in the notation of `bpftool prog dump xlated`, with places for distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program(Vec<Instruction>);

/// Writes a policy as a program.
///
/// # Errors
/// More rules than a jump can reach over.
pub(super) fn assemble(policy: &Policy) -> Result<Program, Failure> {
    let mut code = Assembler::default();
    code.instructions.extend([
        // access_type is (access << 16) | kind.
        Instruction::Load(KIND, ACCESS_TYPE_FIELD),
        Instruction::Copy(ACCESS, KIND),
        Instruction::And(KIND, 0xffff),
        Instruction::ShiftRight(ACCESS, 16),
        Instruction::Load(MAJOR, MAJOR_FIELD),
        Instruction::Load(MINOR, MINOR_FIELD),
    ]);
    let (characters, blocks) = (rules_for(policy, Kind::Character), rules_for(policy, Kind::Block));
    let mut open_ends = Vec::new();
    let mut flow = Flow::GoesOn;
    if !characters.is_empty() {
        let block = code.jump(When::NotEqual(KIND, CHARACTER));
        flow = code.section(&characters);
        if blocks.is_empty() {
            open_ends.push(block);
        } else {
            if flow == Flow::GoesOn {
                open_ends.push(code.jump(When::Always));
            }
            code.aim_here(block);
            flow = code.section(&blocks);
        }
    } else if !blocks.is_empty() {
        open_ends.push(code.jump(When::Equal(KIND, CHARACTER)));
        flow = code.section(&blocks);
    }
    code.end(policy.base, &open_ends, flow);
    if code.instructions.len() > i16::MAX as usize {
        return Err(Failure::engine(format!("too many device rules: {}", policy.exceptions.len())));
    }
    Ok(Program(code.instructions))
}

/// The rules that concern a kind, in the order in which they are asked: the last first, and between rules for any major
/// those of one major together. (Rules for different majors do not get in each other's way.)
fn rules_for(policy: &Policy, kind: Kind) -> Vec<Rule> {
    let concerned = policy.exceptions.iter().rev().filter(|rule| rule.kind.is_none_or(|of| of == kind));
    let mut segment = 0;
    let mut rules: Vec<(usize, Rule)> = concerned
        .map(|rule| {
            let own = segment + usize::from(rule.major.is_none());
            segment = own + usize::from(rule.major.is_none());
            (own, *rule)
        })
        .collect();
    rules.sort_by_key(|(segment, rule)| (*segment, rule.major));
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// Whether control reaches what follows. The verifier refuses instructions that nothing leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoesOn,
    Ends,
}

/// A program in the making, with jumps whose targets are not there yet.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    to_allow: Vec<usize>,
    to_deny: Vec<usize>,
}

impl Assembler {
    /// Appends a jump to a place to be named later.
    fn jump(&mut self, when: When) -> usize {
        self.instructions.push(Instruction::Jump(when, 0));
        self.instructions.len() - 1
    }

    /// Appends a jump to a verdict.
    fn decide(&mut self, when: When, verdict: Verdict) {
        let place = self.jump(when);
        if verdict == Verdict::Allow { self.to_allow.push(place) } else { self.to_deny.push(place) }
    }

    /// Lets a jump lead to what is appended next.
    fn aim_here(&mut self, place: usize) {
        let here = self.instructions.len();
        if let Instruction::Jump(_, target) = &mut self.instructions[place] {
            *target = here;
        }
    }

    /// All rules of a kind.
    fn section(&mut self, rules: &[Rule]) -> Flow {
        let mut after_majors = Vec::new();
        let mut runs = rules.chunk_by(|one, other| one.major == other.major).peekable();
        while let Some(run) = runs.next() {
            // A number beyond 2^31 becomes a negative one, which no device has either.
            let Some(major) = run[0].major.map(|major| major as i32) else {
                after_majors.drain(..).for_each(|place| self.aim_here(place));
                if self.run(run) == Flow::Ends {
                    return Flow::Ends;
                }
                continue;
            };
            if let (None, Access::ALL) = (run[0].minor, run[0].access) {
                self.decide(When::Equal(MAJOR, major), run[0].verdict);
                continue;
            }
            let other = self.jump(When::NotEqual(MAJOR, major));
            let flow = self.run(run);
            // It is none of the majors that follow, either.
            if flow == Flow::GoesOn && runs.peek().is_some_and(|next| next[0].major.is_some()) {
                after_majors.push(self.jump(When::Always));
            }
            self.aim_here(other);
        }
        after_majors.into_iter().for_each(|place| self.aim_here(place));
        Flow::GoesOn
    }

    /// Rules that differ in their minor at most.
    fn run(&mut self, rules: &[Rule]) -> Flow {
        for rule in rules {
            let minor = rule.minor.map(|minor| minor as i32);
            match (minor, rule.access) {
                // All accesses that are left are covered, and what comes behind has nothing to say.
                (None, Access::ALL) => {
                    self.decide(When::Always, rule.verdict);
                    return Flow::Ends;
                }
                (Some(minor), Access::ALL) => self.decide(When::Equal(MINOR, minor), rule.verdict),
                (None, _) => self.accesses(rule),
                (Some(minor), _) => {
                    let next = self.jump(When::NotEqual(MINOR, minor));
                    self.accesses(rule);
                    // Read anew, so that the verifier forgets what it has learned of it here: else it walks all the rest
                    // once more for each such rule, and gives up after a million steps.
                    self.instructions.push(Instruction::Load(MINOR, MINOR_FIELD));
                    self.aim_here(next);
                }
            }
        }
        Flow::GoesOn
    }

    /// Decides some of the accesses and leaves the others to the next rules.
    fn accesses(&mut self, rule: &Rule) {
        let bits = rule.access.bits();
        match rule.verdict {
            Verdict::Allow => {
                self.instructions.push(Instruction::And(ACCESS, i32::from(!bits & Access::ALL.bits())));
                self.decide(When::Equal(ACCESS, 0), Verdict::Allow);
            }
            Verdict::Deny => self.decide(When::AnyBit(ACCESS, i32::from(bits)), Verdict::Deny),
        }
    }

    /// The verdicts: first what holds where no rule spoke, reached from `open_ends` and, if it goes on, from above.
    fn end(&mut self, base: Verdict, open_ends: &[usize], flow: Flow) {
        let (mut same, mut other) = (std::mem::take(&mut self.to_allow), std::mem::take(&mut self.to_deny));
        if base == Verdict::Deny {
            std::mem::swap(&mut same, &mut other);
        }
        same.extend(open_ends);
        let result = i32::from(base == Verdict::Allow);
        for (jumps, result, falls) in [(same, result, flow == Flow::GoesOn), (other, 1 - result, false)] {
            if falls || !jumps.is_empty() {
                jumps.into_iter().for_each(|place| self.aim_here(place));
                self.instructions.extend([Instruction::Set(RESULT, result), Instruction::Exit]);
            }
        }
    }
}

impl Program {
    /// As `struct bpf_insn`, eight bytes each.
    pub(super) fn encode(&self) -> Vec<u64> {
        self.0.iter().enumerate().map(|(place, instruction)| encode(*instruction, place)).collect()
    }
}

fn encode(instruction: Instruction, place: usize) -> u64 {
    // Distances count from the instruction behind the jump; the length of a program was checked.
    let distance = |target: usize| (target as i64 - place as i64 - 1) as i16;
    let (code, to, from, offset, value): (u8, Register, Register, i16, i32) = match instruction {
        Instruction::Load(to, field) => (0x61, to, CONTEXT, field, 0),
        Instruction::Copy(to, from) => (0xbf, to, from, 0, 0),
        Instruction::And(register, value) => (0x57, register, 0, 0, value),
        Instruction::ShiftRight(register, bits) => (0x77, register, 0, 0, bits),
        Instruction::Set(register, value) => (0xb7, register, 0, 0, value),
        Instruction::Jump(When::Always, target) => (0x05, 0, 0, distance(target), 0),
        Instruction::Jump(When::Equal(register, value), target) => (0x15, register, 0, distance(target), value),
        Instruction::Jump(When::NotEqual(register, value), target) => (0x55, register, 0, distance(target), value),
        Instruction::Jump(When::AnyBit(register, bits), target) => (0x45, register, 0, distance(target), bits),
        Instruction::Exit => (0x95, 0, 0, 0, 0),
    };
    // Two bit fields of a C structure: the first lies in the low half on little-endian machines.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    u64::from_ne_bytes([code, registers, o0, o1, v0, v1, v2, v3])
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Instruction::Load(to, field) => write!(f, "r{to} = *(u32 *)(r{CONTEXT} + {field})"),
            Instruction::Copy(to, from) => write!(f, "r{to} = r{from}"),
            Instruction::And(register, value) => write!(f, "r{register} &= {value:#x}"),
            Instruction::ShiftRight(register, bits) => write!(f, "r{register} >>= {bits}"),
            Instruction::Set(register, value) => write!(f, "r{register} = {value}"),
            Instruction::Jump(When::Always, to) => write!(f, "goto {to}"),
            Instruction::Jump(When::Equal(register, value), to) => write!(f, "if r{register} == {value} goto {to}"),
            Instruction::Jump(When::NotEqual(register, value), to) => write!(f, "if r{register} != {value} goto {to}"),
            Instruction::Jump(When::AnyBit(register, bits), to) => write!(f, "if r{register} & {bits:#x} goto {to}"),
            Instruction::Exit => f.write_str("exit"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, instruction) in self.0.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{place:3}: {instruction}")?;
        }
        Ok(())
    }
}
