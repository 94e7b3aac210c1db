"""The whole method in one file: GRPO with next-observation prediction (PaW, arXiv 2606.02388).

    python examples/one_file.py [--updates 40] [--coefficient 1.0] [--seed 0]

A policy of words plays eight games of the household: it imitates an expert, then learns from its
own episodes. `--coefficient 0` is the GRPO baseline. Equation numbers are the paper's.
"""

import argparse
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import paw.envs
import paw.objective as P

NUM_GAMES, GROUP_SIZE, MAX_TURNS, MAX_WORDS = 8, 8, 10, 7
SELECTION_FRACTION, PROBABILITY_CAP, CLIP = 0.75, 0.2, 0.2  # alpha, rho, epsilon
PROMPT, ACTION, OBSERVATION, END = *range(3), 0  # roles of a token; the id of <end>


class Transition(NamedTuple):
    """One turn (h_t, a_t, o_{t+1}) as token ids; the action's are kept as they were sampled."""

    trajectory: int
    prompt: list[int]
    action: list[int]
    observation: list[int]


class Policy(nn.Module):
    """A causal language model whose tokens are words, numbered as they are first met."""

    def __init__(self, size: int = 64, max_words: int = 128):
        super().__init__()
        self.ids = {"<end>": END}
        self.embed, self.head = nn.Embedding(max_words, size), nn.Linear(size, max_words)
        self.gru = nn.GRU(size, size, batch_first=True)

    def encode(self, text: str) -> list[int]:
        words = re.findall(r"\w+ \d+|\w+|[^\w\s]", text)  # "mug 2" is one word
        return [self.ids.setdefault(word, len(self.ids)) for word in words]

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden, _ = self.gru(self.embed(tokens), state)
        return self.head(hidden)[..., : len(self.ids)], hidden

    @torch.no_grad()
    def sample(self, prompts: list[list[int]]) -> list[list[int]]:
        """An action for each prompt, word by word up to <end>, which is part of it."""
        each, last = torch.arange(len(prompts)), torch.tensor([len(p) - 1 for p in prompts])
        logits, hidden = self(pad_sequence([torch.tensor(p) for p in prompts], batch_first=True))
        logits, state, words = logits[each, last], hidden[None, each, last], []
        for _ in range(MAX_WORDS):
            words.append(torch.multinomial(logits.softmax(-1), 1))
            logits, hidden = self(words[-1], state)
            logits, state = logits[:, 0], hidden[None, :, 0]
        return [a[: [*a, END].index(END) + 1] for a in torch.cat(words, 1).tolist()]


def act(policy: Policy, source, tasks, experts=()) -> tuple[list[Transition], Tensor]:
    """Play an episode of each task, by the policy or by experts: transitions and returns [N]."""
    games = [source.open(task) for task in tasks]
    seen, said = [game.reset() for game in games], [""] * len(games)
    transitions, returns, playing = [], torch.zeros(len(games)), [*range(len(games))]
    for _ in range(MAX_TURNS):
        texts = [f"{tasks[i].instruction} {said[i]} {seen[i].text}" for i in playing]
        prompts = [[*policy.encode(text), END] for text in texts]
        shown = [[*policy.encode(experts[i].act(seen[i])), END] for i in playing if experts]
        actions = shown or (policy.sample(prompts) if prompts else [])
        for i, prompt, action in zip([*playing], prompts, actions, strict=True):
            said[i] = " ".join([*policy.ids][token] for token in action if token != END)
            result = games[i].step(said[i])
            seen[i], returns[i] = result.observation, returns[i] + result.reward
            transitions.append(Transition(i, prompt, action, policy.encode(seen[i].text)))
            if result.terminated:
                playing.remove(i)
    return transitions, returns


def score(policy: Policy, transitions: list[Transition]) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over rows h_t + a_t + o_{t+1}: log-prob, entropy and role of each token, [P, T]."""
    rows = [torch.tensor(t.prompt + t.action + t.observation) for t in transitions]
    roles = [torch.tensor([r for r, ids in enumerate(t[1:]) for _ in ids]) for t in transitions]
    tokens, roles = (pad_sequence(x, batch_first=True) for x in (rows, roles))
    logits, _ = policy(tokens[:, :-1])
    logprobs = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logprobs, P.token_entropy(logits.detach()), roles[:, 1:]


def losses(policy: Policy, transitions: list[Transition], returns: Tensor) -> tuple[Tensor, Tensor]:
    """L_RL and the prediction term of Eq. 11 for one update. All denominators are the update's and
    stand in the weights, so that losses are sums: micro-batches would add up to the same."""
    logprobs, entropy, roles = score(policy, transitions)  # the one pass serves both losses
    action, target = roles == ACTION, roles == OBSERVATION
    turn = torch.arange(len(transitions))[:, None].expand_as(roles)  # the transition of a token
    trajectory = torch.tensor([t.trajectory for t in transitions])
    group = torch.arange(len(returns)) // GROUP_SIZE
    advantages = P.group_relative_advantages(returns, group)[trajectory]  # A_t of Eq. 1: GRPO's
    now, old = logprobs[action], logprobs[action].detach()  # equal: one step an update
    surrogate = P.clipped_surrogate(now, old, advantages[turn[action]], CLIP, CLIP)  # Eq. 1
    policy_loss = P.weighted_sum(surrogate, torch.full_like(surrogate, 1 / len(surrogate)))
    uncertainty = P.segment_mean(entropy[action], turn[action], len(transitions))  # H(a_t | h_t)
    selected = P.select_top_fraction(uncertainty, target.any(1), SELECTION_FRACTION)  # Eq. 4
    lambdas = P.group_weights(returns, group, max_return=10.0)  # Eq. 10: 1 - mean return / R_max
    weights = P.transition_weights(selected, group[trajectory], lambdas)  # Eq. 11: λ_g / (G |S_g|)
    weights = weights / target.sum(1).clamp(min=1)  # Eq. 9: over the full length |o_{t+1}|
    errors = P.clipped_mae(logprobs[target], PROBABILITY_CAP)  # Eq. 8: 1[p <= ρ] (1 - p)
    return policy_loss, P.weighted_sum(errors, weights[turn[target]])


def main(updates: int, coefficient: float, seed: int, imitation_steps: int = 250) -> list[tuple]:
    """Imitate, then train; success and NLL of next observations on the way."""
    torch.set_num_threads(1)  # threads of so small a model wait for each other
    torch.manual_seed(seed)
    source = paw.envs.make("household", split="train", kinds=["look_at_obj_in_light"])
    games, policy = [g for g in source[:NUM_GAMES] for _ in range(GROUP_SIZE)], Policy()
    experts = [source.expert(game, seed=i, noise=0.5) for i, game in enumerate(games)]
    shown, _ = act(policy, source, games[::4], experts[::4])  # two episodes a game
    experts = [source.expert(game, seed=-i, noise=0.5, junk=0.3) for i, game in enumerate(games)]
    held_out, _ = act(policy, source, games, experts)
    optimizer, measured = torch.optim.Adam(policy.parameters(), 5e-3), []
    for update in range(-imitation_steps, updates + 1):
        if update < 0:  # behaviour cloning, as a pretrained model would have read such texts
            logprobs, _, roles = score(policy, [shown[i] for i in torch.randperm(len(shown))[:48]])
            loss = -logprobs[roles == ACTION].mean() - 0.1 * logprobs[roles == OBSERVATION].mean()
        else:
            transitions, returns = act(policy, source, games)
            if update % 10 == 0 or update == updates:
                logprobs, _, roles = score(policy, held_out)
                nll = -logprobs[roles == OBSERVATION].mean().item()
                measured.append(((returns > 0).float().mean().item(), nll))
                print(f"update {update:3}   success {measured[-1][0]:6.1%}   NLL {nll:.3f}")
            policy_loss, wm_loss = losses(policy, transitions, returns)
            loss = policy_loss + coefficient * wm_loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for name, value in {"updates": 40, "coefficient": 1.0, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    main(**vars(parser.parse_args()))
