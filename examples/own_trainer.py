"""PaW in a trainer of one's own: `paw.objective`, plain PyTorch, a causal language model.

    python examples/own_trainer.py [--updates 40] [--coefficient 1.0] [--seed 0]

A small model is told to find a box and opens three; the game says what is in them. It has read
games of random choices, as a pretrained model has read the web. `--coefficient 0` is the GRPO
baseline. docs/your-own-trainer.md goes through it step by step.
"""

import argparse
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

import paw.objective as P

WORDS = [
    "<pad>",
    "find",
    "open",
    *map(str, range(1, 9)),
    "what",
    "?",
    "yes",
    "box",
    "holds",
    "dust",
]
GROUPS, GROUP_SIZE, TURNS, ACTION_LENGTH, MICRO_BATCH = 8, 16, 3, 2, 64
CONTEXT, ACTION, OBSERVATION = range(3)  # the role of a token


class Transition(NamedTuple):
    """h_t + a_t + o_{t+1} as ids, and what the sampler knew of each token of the action."""

    trajectory: int
    ids: list[int]
    roles: list[int]
    logprobs: list[float]
    entropy: float

    def weighing(self, weight: float) -> "Transition":
        """Without its observation where that weighs nothing: a row's length changes bits."""
        end = len(self.ids) - (0 if weight else self.roles.count(OBSERVATION))
        return self._replace(ids=self.ids[:end], roles=self.roles[:end])


def answer(said: str, number: int) -> str:
    verb, box = said.split()
    if verb != "open" or not box.isdigit():
        return "what ?"
    return "yes" if int(box) == number else f"box {box} holds dust"


@torch.no_grad()
def act(model: LlamaForCausalLM) -> tuple[list[Transition], Tensor]:
    """Play: the update's transitions, and the return of each trajectory (R_max is 1)."""
    numbers = torch.randint(1, 9, (GROUPS,)).repeat_interleave(GROUP_SIZE).tolist()
    returns, transitions = torch.zeros(len(numbers)), []
    histories = [[WORDS.index(word) for word in ("find", str(number))] for number in numbers]
    for _ in range(TURNS):
        playing = [i for i in range(len(numbers)) if not returns[i]]
        rows, known = {i: [*histories[i]] for i in playing}, {i: [] for i in playing}
        for _ in range(ACTION_LENGTH if playing else 0):
            tokens = pad_sequence([torch.tensor(rows[i]) for i in playing], batch_first=True)
            last = torch.tensor([len(rows[i]) - 1 for i in playing])
            logprobs = model(tokens).logits[torch.arange(len(playing)), last].log_softmax(-1)
            for i, one, token in zip(playing, logprobs, logprobs.exp().multinomial(1), strict=True):
                rows[i].append(int(token))  # ids are kept as they were sampled
                known[i].append((one[token].item(), P.token_entropy(one).item()))
        for i in playing:
            said = answer(" ".join(WORDS[t] for t in rows[i][-ACTION_LENGTH:]), numbers[i])
            returns[i] = said == "yes"
            seen = [WORDS.index(word) for word in said.split()]
            roles = [CONTEXT] * len(histories[i]) + [ACTION] * ACTION_LENGTH
            logprobs, entropies = zip(*known[i], strict=True)
            transitions.append(Transition(
                i, rows[i] + seen, roles + [OBSERVATION] * len(seen), list(logprobs),
                sum(entropies) / ACTION_LENGTH))  # fmt: skip
            histories[i] = rows[i] + seen
    return transitions, returns


def judge(transitions: list[Transition], returns: Tensor) -> tuple[Tensor, Tensor]:
    """[P] advantage and [P] prediction weight of each transition: once, over the whole update."""
    group = torch.arange(len(returns)) // GROUP_SIZE
    trajectory = torch.tensor([t.trajectory for t in transitions])
    advantages = P.group_relative_advantages(returns, group)[trajectory]  # Eq. 1
    entropy = torch.tensor([t.entropy for t in transitions])
    candidates = torch.tensor([OBSERVATION in t.roles for t in transitions])
    selected = P.select_top_fraction(entropy, candidates, fraction=0.75)  # Eq. 4
    lambdas = P.group_weights(returns, group, max_return=1.0)  # Eq. 10
    return advantages, P.transition_weights(selected, group[trajectory], lambdas)  # Eq. 11


def learn(model: LlamaForCausalLM, transitions: list[Transition], judged, coefficient: float):
    """The gradient of one update: every denominator is the update's, so micro-batches add up."""
    advantages, weights = judged[0], coefficient * judged[1]
    num_actions = ACTION_LENGTH * len(transitions)
    for places in torch.arange(len(transitions)).split(MICRO_BATCH):
        some = [transitions[i].weighing(weights[i]) for i in places]
        tokens = pad_sequence([torch.tensor(t.ids) for t in some], batch_first=True)
        roles = pad_sequence([torch.tensor(t.roles) for t in some], batch_first=True)[:, 1:]
        logprobs = model(tokens).logits[:, :-1].log_softmax(-1)  # one pass for both losses
        logprobs = logprobs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
        turn = places[:, None].expand_as(roles)
        action, target = roles == ACTION, roles == OBSERVATION
        old = torch.tensor([value for t in some for value in t.logprobs])
        surrogate = P.clipped_surrogate(logprobs[action], old, advantages[turn[action]], 0.2, 0.2)
        loss = P.weighted_sum(surrogate, torch.full_like(surrogate, 1 / num_actions))
        errors = P.clipped_mae(logprobs[target], probability_cap=0.2)  # Eq. 8
        share = weights[places] / target.sum(1).clamp(min=1)  # Eq. 9
        if target.any():
            loss = loss + P.weighted_sum(errors, share[:, None].expand_as(roles)[target])
        loss.backward()


def configuration() -> LlamaConfig:
    return LlamaConfig(vocab_size=len(WORDS), hidden_size=64, intermediate_size=128,
                       num_hidden_layers=2, num_attention_heads=4)  # fmt: skip


def pretrain(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Next tokens of games of random choices."""
    for _ in range(120):
        rows = []
        for _ in range(32):
            number, *boxes = torch.randint(1, 9, (1 + TURNS,)).tolist()
            turns = [f"open {box} {answer(f'open {box}', number)}" for box in boxes]
            words = f"find {number} {' '.join(turns)}".split()
            rows.append(torch.tensor([WORDS.index(word) for word in words]))
        tokens = pad_sequence(rows, batch_first=True)
        optimizer.zero_grad()
        model(tokens, labels=tokens.where(tokens > 0, -100)).loss.backward()
        optimizer.step()


def main(updates: int, coefficient: float, seed: int) -> list[float]:
    """Trains; the success of each update's games."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # threads of so small a model wait for each other
    model = LlamaForCausalLM(configuration())
    optimizer, found = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.0), []
    pretrain(model, optimizer)
    for update in range(updates):
        transitions, returns = act(model)
        optimizer.zero_grad()
        learn(model, transitions, judge(transitions, returns), coefficient)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(returns.mean().item())
        if update % 10 == 9:
            print(f"update {update + 1:3}   success {sum(found[-10:]) / 10:6.1%}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for name, value in {"updates": 40, "coefficient": 1.0, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    main(**vars(parser.parse_args()))
