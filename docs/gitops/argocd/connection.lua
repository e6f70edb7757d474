-- Health of a Connection: Healthy when it can be used, Degraded when only a change of its spec can help.
local hs = { status = "Progressing", message = "the operator has not seen it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local told = found.Ready
if told ~= nil then
  hs.message = told.reason .. ": " .. told.message
end
-- What is said of an earlier generation says nothing of this one.
if status.observedGeneration ~= obj.metadata.generation then
  hs.message = "generation " .. tostring(obj.metadata.generation) .. " has not been seen yet"
elseif found.Stalled ~= nil and found.Stalled.status == "True" then
  hs.status = "Degraded"
elseif told ~= nil and told.status == "True" then
  hs.status = "Healthy"
end
return hs
