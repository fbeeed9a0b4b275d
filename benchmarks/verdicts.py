"""Time to a verdict on the linear masked autoencoder's expected gradient, by each evidence.

The original: 1000 calls of torch.autograd.functional.jacobian for each weight, which end in an
estimate and not yet in a verdict. Ours: Monte Carlo at a resolution of 1e-2, the exact expectation,
and a certificate. "First" is the first call in a process, tracing and compilation included; "again"
is a second call on the same problem. Run with

    python benchmarks/verdicts.py
"""

import time

import torch

import jaxgrad as jg

M, N, PROB, SAMPLES = 50, 10, 0.6, 1000
SIZES = {"m": M, "n": N, "p": N}


def original():
    torch.manual_seed(0)
    x, w1, w2 = torch.rand(M, N), torch.rand(N, N), torch.rand(N, N)

    def loss(w1, w2):
        z = (torch.zeros(M, N).bernoulli_(PROB) * x) @ w1.T @ w2.T - x
        return sum(sum(z * z)) / M / N

    total = [torch.zeros_like(w1), torch.zeros_like(w2)]
    for _ in range(SAMPLES):
        total[0] += torch.autograd.functional.jacobian(lambda w: loss(w, w2), w1)
        total[1] += torch.autograd.functional.jacobian(lambda w: loss(w1, w), w2)
    return [t / SAMPLES for t in total]


def seconds(job):
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def main():
    loop, _ = seconds(original)
    entry = jg.catalog.get("masked_autoencoder_bernoulli")
    print(f"masked autoencoder, m={M}, n={N}; the certificate at its own small sizes\n")
    print("| evidence | first, s | again, s | loop / again | what it says |")
    print("| --- | ---: | ---: | ---: | --- |")
    print(
        f"| original loop, {SAMPLES} samples | {loop:.2f} | {loop:.2f} | 1 | an estimate; no "
        f"verdict |"
    )
    for evidence in ("monte_carlo", "expectation", "certificate"):
        options = {"sizes": SIZES} if evidence != "certificate" else {}
        first, report = seconds(lambda e=evidence, o=options: jg.verify(entry, evidence=e, **o))
        again = sorted(
            seconds(lambda e=evidence, o=options: jg.verify(entry, evidence=e, **o))[0]
            for _ in range(3)
        )[1]
        finding = report.findings[0]
        said = (
            f"wrong with probability {finding.bound:.0e}"
            if evidence == "certificate"
            else f"right to {finding.detectable:.0e}"
        )
        print(
            f"| {evidence} | {first:.2f} | {again:.2f} | {loop / again:.1f} | {report.verdict}, "
            f"{said} |"
        )


if __name__ == "__main__":
    main()
