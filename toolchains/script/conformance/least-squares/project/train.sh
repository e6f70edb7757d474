#!/bin/sh
# Fits a line through points by least squares, with awk: no Python, no package.
set -eu

slope=${LEGION_PARAM_SLOPE:-2}
points=${LEGION_PARAM_POINTS:-20}

legion_param slope "$slope"
legion_param points "$points"
legion_tag kind least-squares

mkdir -p "$LEGION_OUTPUT/model"
awk -v slope="$slope" -v points="$points" 'BEGIN {
    for (i = 1; i <= points; i++) {
        # A noise that is the same every time: two trainings can be compared.
        x = i; y = slope * x + 1 + (i % 3 - 1) * 0.5
        n++; sx += x; sy += y; sxx += x * x; sxy += x * y
        xs[i] = x; ys[i] = y
        if (n < 2) continue
        b = (n * sxy - sx * sy) / (n * sxx - sx * sx); a = (sy - b * sx) / n
        sse = 0
        for (j = 1; j <= n; j++) sse += (ys[j] - a - b * xs[j]) ^ 2
        printf "%d %.12g\n", i, sse / n
    }
    printf "intercept %.12g\nslope %.12g\n", a, b > ENVIRON["LEGION_OUTPUT"] "/model/line.txt"
}' | while read -r step error; do
    legion_metric mse "$error" "$step"
done
cat "$LEGION_OUTPUT/model/line.txt"
